"""One asset with one step, made without Dagster's decorator, which takes four times as long.

A folder of 200 pipelines has two thousand of them, and every reload makes them all.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.definition.asset_spec import AssetExecutionType

OUTPUT = "result"
# Upstream assets are waited for; their values are in the store.
WAITED_FOR = dg.In(dg.Nothing)
Body = Callable[[dg.AssetExecutionContext], dg.MaterializeResult[Any]]


def one_asset(
    body: Body,
    spec: dg.AssetSpec,
    *,
    resources: Mapping[str, dg.ResourceDefinition],
    op_tags: Mapping[str, str] | None = None,
    retry_policy: dg.RetryPolicy | None = None,
    pool: str | None = None,
    check_specs: Collection[dg.AssetCheckSpec] = (),
) -> dg.AssetsDefinition:
    """The asset of a spec, computed by `body`: what `@dg.asset` makes of the same, to the last field.

    `resources` are bound to the asset, so that it needs none of the definitions that it is merged into.
    """

    def compute(
        context: dg.AssetExecutionContext, _: Mapping[str, Any]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        yield body(context)

    inputs = {_identifier(dep.asset_key): dep.asset_key for dep in spec.deps}
    checks = {check.get_python_identifier(): check for check in check_specs}
    op = dg.OpDefinition(
        compute_fn=compute,
        name=_identifier(spec.key),
        description=spec.description,
        ins=dict.fromkeys(inputs, WAITED_FOR),
        outs={
            OUTPUT: dg.Out(
                description=spec.description,
                code_version=spec.code_version,
                metadata=spec.metadata,
                io_manager_key="io_manager",
            ),
            **{name: dg.Out(dagster_type=dg.Nothing) for name in checks},
        },
        required_resource_keys=set(resources),
        tags=op_tags,
        retry_policy=retry_policy,
        code_version=spec.code_version,
        pool=pool,
    )
    return dg.AssetsDefinition(
        keys_by_input_name=inputs,
        keys_by_output_name={OUTPUT: spec.key},
        node_def=op,
        specs=[spec],
        resource_defs=resources,
        check_specs_by_output_name=checks,
    )


def one_source(observe: Callable[[], Iterator[dg.ObserveResult]], spec: dg.AssetSpec) -> dg.AssetsDefinition:
    """The asset of a spec that is observed and never made: what `@dg.multi_observable_source_asset` makes of it."""

    def compute(_: dg.OpExecutionContext, __: Mapping[str, Any]) -> Iterator[dg.ObserveResult]:
        yield from observe()

    name = _identifier(spec.key)
    out = dg.Out(
        dagster_type=dg.Nothing,
        description=spec.description,
        code_version=spec.code_version,
        metadata=spec.metadata,
    )
    return dg.AssetsDefinition(
        keys_by_input_name={},
        keys_by_output_name={name: spec.key},
        node_def=dg.OpDefinition(compute_fn=compute, name=name, ins={}, outs={name: out}, config_schema={}),
        specs=[spec],
        execution_type=AssetExecutionType.OBSERVATION,
    )


def _identifier(key: dg.AssetKey) -> str:
    """What Dagster calls the step of an asset."""
    return key.to_python_identifier()
