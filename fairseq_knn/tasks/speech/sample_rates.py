"""Sample rates of audio of which features are made while it is loaded."""

import io
from pathlib import Path
from typing import Any

from fairseq.data.audio.audio_utils import SF_AUDIO_FILE_EXTENSIONS, is_sf_audio_data, parse_path, read_from_stored_zip

from fairseq_knn.errors import ConfigurationError

_LOOKED_AT = 5000  # files of a manifest at most, evenly spaced: a header takes 0.2 ms, that of .ogg 1.5 ms
_HEADER = 1 << 16  # bytes of a part of an archive


def check_sample_rates(dataset: Any, manifest: str, configuration: Path) -> None:
    """Stock makes features of audio at the rate it was recorded with: those of two rates mean different frequencies.

    Every file of a manifest is looked at, or, of more than 5,000, at least 2,500 that are evenly spaced.

    Args:
        dataset: a SpeechToTextDataset.
        manifest: where its paths stand.
        configuration: YAML that it was loaded with.

    Raises:
        ConfigurationError: a file has another rate than the configuration says.
    """
    if dataset.cfg.use_audio_input:  # stock converts waveforms
        return
    wanted = dataset.cfg.use_sample_rate
    paths = dataset.audio_paths
    for path in paths[:: -(-len(paths) // _LOOKED_AT) or 1]:
        found = _sample_rate(path)
        if found is not None and found != wanted:
            raise ConfigurationError(
                f"{path} in {manifest} has {found} samples a second, but use_sample_rate of {configuration} is "
                f"{wanted}: convert the audio, or correct use_sample_rate if all of it is like this"
            )


def _sample_rate(path: str) -> int | None:
    """In Hz; ``None`` for features, which have none."""
    file, part = parse_path(path)
    if part:
        place, length = part
        data = read_from_stored_zip(file, place, min(length, _HEADER))
        if not is_sf_audio_data(data):
            return None
        source: Any = io.BytesIO(data)
    elif Path(file).suffix in SF_AUDIO_FILE_EXTENSIONS:
        source = file
    else:
        return None
    try:
        import soundfile
    except ImportError as error:
        raise ConfigurationError(f"{path} is audio, which soundfile reads: pip install soundfile") from error
    try:
        return int(soundfile.info(source).samplerate)
    except soundfile.SoundFileError as error:
        raise ConfigurationError(
            f"{path} cannot be read as audio ({' '.join(str(error).split())}): replace it, or leave its line out"
        ) from error
