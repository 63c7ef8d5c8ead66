"""The small setting: model and medical datastore of the quick start."""

from quickstart import Quickstart

from benchmarks.setting import Setting

_DOMAIN = "medical-random"


def prepare(quickstart: Quickstart) -> Setting:
    """Train the model and build the datastore, if that was not done before."""
    quickstart.prepare()
    quickstart.build(_DOMAIN)
    return Setting(
        name="small",
        description="2+2 layers, d = 160, V = 5,000; IT model, medical datastore and test set",
        model=quickstart.base,
        data=quickstart.binary(_DOMAIN),
        store=quickstart.store(_DOMAIN),
        building=quickstart.binary(_DOMAIN),
    )
