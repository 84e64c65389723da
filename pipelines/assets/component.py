"""A folder of pipelines as a Dagster component, for projects that are kept with `dg`."""

from pathlib import Path

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from pydantic import BaseModel, Field

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.resources.local import absolute

STATE = ".tunemill"
FOLDER_SAID = "where the YAMLs are, seen from the project's root"
STATE_SAID = "where results live, seen from the project's root"


class PipelinesParams(BaseModel):
    """What `dg scaffold defs tunemill.PipelinesComponent NAME` may be given."""

    folder: str = Field("pipelines", description=FOLDER_SAID)
    state: str = Field(STATE, description=STATE_SAID)


class PipelinesScaffolder(dg.Scaffolder[PipelinesParams]):
    """Writes `defs.yaml`, and makes the folder that it names."""

    @classmethod
    def get_scaffold_params(cls) -> type[PipelinesParams]:
        return PipelinesParams

    def scaffold(self, request: dg.ScaffoldRequest[PipelinesParams]) -> None:
        root = request.project_root or request.target_path
        Path(absolute(request.params.folder, root)).mkdir(parents=True, exist_ok=True)
        scaffold_component(request, request.params.model_dump())


@dg.scaffold_with(PipelinesScaffolder)
class PipelinesComponent(dg.Component, dg.Resolvable, dg.Model):
    """Every YAML of a folder as a group of assets, with its checks, schedule and jobs."""

    folder: str = Field("pipelines", description=FOLDER_SAID)
    state: str = Field(STATE, description=STATE_SAID)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        root = context.project_root
        folder = Path(absolute(self.folder, root))
        if not folder.is_dir():
            raise dg.DagsterInvalidDefinitionError(
                f"{context.path}: folder: there is no folder {folder}; make it, or name the one with the "
                f"YAMLs, seen from {root}"
            )
        return build_definitions(folder, Path(absolute(self.state, root)), label=self.folder)
