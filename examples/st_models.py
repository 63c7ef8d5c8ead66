"""What the demonstration of speech translation needs of trained models, as two commands.

python examples/st_models.py start --encoder asr.pt --decoder mt.pt start.pt
python examples/st_models.py agreement DATA --config-yaml eng.yaml --split test --student st.pt --expert mt.pt \\
    --pieces ces.model
"""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils
from fairseq.tasks.speech_to_text import SpeechToTextTask
from torch import Tensor

from fairseq_knn.compat import allow_fairseq_checkpoints
from fairseq_knn.storage.atomic import atomic_path

# Connectionist temporal classification's own layer, which helps a recogniser to learn and which translation has not.
_CTC = "encoder.ctc_proj."


def started(recogniser: Mapping[str, Any], translator: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint that has the encoder of one model and the decoder of another.

    Stock loads an encoder with all of its layers or not at all, and for s2t_transformer no decoder.
    """
    encoder = {
        name: value
        for name, value in recogniser["model"].items()
        if name.startswith("encoder.") and not name.startswith(_CTC)
    }
    decoder = {name: value for name, value in translator["model"].items() if name.startswith("decoder.")}
    return {**recogniser, "model": {**encoder, **decoder}}


def first_choices(model: Any, net_input: Mapping[str, Any]) -> Tensor:
    """The likeliest token after each token of each prefix, int64 (B, T)."""
    logits: Tensor = model(**net_input)[0]
    return logits.argmax(-1)


def expert_input(sentences: Iterable[Tensor], sample: Mapping[str, Any], pad: int) -> dict[str, Any]:
    """What an expert in text is fed with: transcripts, right-padded, int64 (B, S), and the sample's own prefixes."""
    tokens = list(sentences)
    return {
        "src_tokens": data_utils.collate_tokens(tokens, pad, left_pad=False),
        "src_lengths": torch.tensor([len(one) for one in tokens]),
        "prev_output_tokens": sample["net_input"]["prev_output_tokens"],
    }


@torch.no_grad()
def agreement(data: Path, config: str, split: str, student: Path, expert: Path, pieces: Path) -> float:
    """How often a student's first choice after a prefix of a reference is that of an expert which reads the transcript.

    Args:
        data: directory with manifests and the configuration.
        config: name of its YAML file.
        split: whose references.
        student: checkpoint of a model of speech_to_text.
        expert: checkpoint of a model of translation with the same target dictionary.
        pieces: the sentencepiece model of its source side.
    """
    settings = argparse.Namespace(data=str(data), config_yaml=config, multitask_config_yaml=None, seed=1)
    settings.max_source_positions, settings.max_target_positions = 6000, 1024
    task = SpeechToTextTask.setup_task(settings)
    (hearing,), _ = checkpoint_utils.load_model_ensemble([str(student)], task=task)
    (reading,), _, expert_task = checkpoint_utils.load_model_ensemble_and_task([str(expert)])
    assert expert_task.target_dictionary == task.target_dictionary
    processor = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    task.load_dataset(split)
    dataset = task.dataset(split)
    agreed = compared = 0
    for sample in task.get_batch_iterator(dataset, max_tokens=20000).next_epoch_itr(shuffle=False):
        if not sample:
            continue
        transcripts = (
            " ".join(processor.encode(dataset.src_texts[one], out_type=str)) for one in sample["id"].tolist()
        )
        source = expert_task.source_dictionary
        encoded = [source.encode_line(text, add_if_not_exist=False).long() for text in transcripts]
        heard = first_choices(hearing.eval(), sample["net_input"])
        read = first_choices(reading.eval(), expert_input(encoded, sample, source.pad()))
        counted = sample["target"] != task.target_dictionary.pad()
        agreed += int(heard[counted].eq(read[counted]).sum())
        compared += int(counted.sum())
    return agreed / compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="make of a recogniser and a translator what a student begins with")
    start.add_argument("--encoder", type=Path, required=True)
    start.add_argument("--decoder", type=Path, required=True)
    start.add_argument("output", type=Path)
    agree = commands.add_parser("agreement", help="compare the first choices of a student and an expert")
    agree.add_argument("data", type=Path)
    agree.add_argument("--config-yaml", required=True)
    agree.add_argument("--split", required=True)
    for name in ("student", "expert", "pieces"):
        agree.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    allow_fairseq_checkpoints()
    if args.command == "start":
        models = (checkpoint_utils.load_checkpoint_to_cpu(str(path)) for path in (args.encoder, args.decoder))
        with atomic_path(args.output) as path:
            torch.save(started(*models), path)
    else:
        found = agreement(args.data, args.config_yaml, args.split, args.student, args.expert, args.pieces)
        print(f"agreement: {found:.4f}")


if __name__ == "__main__":
    main()
