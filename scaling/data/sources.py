"""Which class serves which corpus: a new one is a module that offers what `scaling.data.documents` asks for, listed
here, with its settings in `scaling.config.data` and a file in configs/data/."""

from scaling.config.data import DataConfig, HfCorpus, PythonCorpus, SyntheticCorpus, TextCorpus
from scaling.data.documents import Source
from scaling.data.hub import HubSource
from scaling.data.installed import InstalledSource
from scaling.data.synthetic import SyntheticSource
from scaling.data.text import TextSource

SOURCES = {
    PythonCorpus: InstalledSource,
    TextCorpus: TextSource,
    HfCorpus: HubSource,
    SyntheticCorpus: SyntheticSource,
}


def source_for(data: DataConfig) -> Source:
    """The source of a run's corpus."""
    return SOURCES[type(data.corpus)](data.corpus, data.seed, data.validation_documents)
