"""What stands in a published model's folder beside its files."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Annotated, Any

from pydantic import Field

from tunemill.resources.protocols import SIGNING
from tunemill.stages.declaration import Fault, GraphMark, Runtime, Source, StageConfig, YamlMark


class PublishedConfig(StageConfig):
    """Licence and signature; what is told of the model is given."""

    publish_license: Annotated[str | None, YamlMark("pipeline.publish.license")] = Field(
        None,
        min_length=1,
        description="the licence that the card names, as the Hub spells it (apache-2.0, mit, other, ...); unset takes "
        "that which the cards of the base models name, of the Hub or in a local folder, or else unknown",
    )
    publish_sign: Annotated[Source[str | None], YamlMark("pipeline.publish.sign")] = Field(
        None, description="a private key (PEM, of an elliptic curve) that signs every file that is published"
    )
    of: Annotated[str, GraphMark()] = Field("trained", description="the node whose model is published")
    model_name: Annotated[str, GraphMark()] = Field("model", description="what the card calls the model")
    evaluations: Annotated[list[str], GraphMark()] = Field(
        [], description="the nodes that scored models, in order"
    )
    provenance: Annotated[dict[str, Any], GraphMark()] = Field(
        {}, description="data, settings, versions and losses behind the model, out of its lineage"
    )

    model_lineage: Annotated[Runtime[dict[str, Any]], GraphMark()] = Field(
        {},
        description="the lineage of the model, to be published: it names times, and the digest of no result",
    )

    def faults(self) -> Iterator[Fault]:
        """A signature without what signs."""
        yield from super().faults()
        if self.publish_sign is not None and not all(map(find_spec, SIGNING)):
            yield Fault("publish_sign", "signing needs a package: pip install 'tunemill[signing]'")
