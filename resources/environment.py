"""The environment of a stage's process: decided here, not inherited.

Libraries read hundreds of variables behind a config's back, and some of them change results (`ATEN_CPU_CAPABILITY`,
`NVIDIA_TF32_OVERRIDE`, `ACCELERATE_MIXED_PRECISION`). So what is not listed does not reach a stage. What must stay
variable although it can change the last bits of a result (how many threads, which devices) is recorded with it.
"""

from collections.abc import Mapping

# Where things are, who the user is, and how text is spelled.
PLACES = {
    "CUDA_CACHE_PATH", "CUDA_HOME", "CUDA_PATH", "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LOGNAME", "NODE_PATH",
    "PATH", "PWD", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONPATH", "PYTHONPYCACHEPREFIX", "PYTHONUTF8",
    "PYTHONWARNINGS", "SHELL", "TEMP", "TERM", "TMP", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TORCH_EXTENSIONS_DIR",
    "TORCH_HOME", "TRITON_CACHE_DIR", "TRITON_HOME", "TZ", "USER", "VIRTUAL_ENV",
}  # fmt: skip
PLACES_BEGIN = ("LC_", "XDG_")
# How the network is reached, and what one may read there.
NETWORK = {
    "ALL_PROXY", "CURL_CA_BUNDLE", "FTP_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "HUGGING_FACE_HUB_TOKEN", "NO_PROXY",
    "NETRC", "OPENAI_API_KEY", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE",
}  # fmt: skip
NETWORK_BEGIN = (
    "AWS_", "AZURE_", "CLOUDSDK_", "FSSPEC_", "GCE_METADATA_", "GCSFS_", "GOOGLE_", "GLOO_", "HF_", "KUBERNETES_",
    "NCCL_", "OCIFS_", "OCI_", "RAY_", "STORAGE_EMULATOR_HOST",
)  # fmt: skip
# What changes neither a result nor where it lies.
HARMLESS = {
    "CUDA_LAUNCH_BLOCKING", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "TORCH_LOGS",
    "TORCH_SHOW_CPP_STACKTRACES",
}  # fmt: skip
# Which devices and how many threads: the order of sums, and so the last bits.
RECORDED = {
    "BNB_CUDA_VERSION", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "LD_PRELOAD",
    "MKL_NUM_THREADS", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_VISIBLE_DEVICES", "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS", "ROCR_VISIBLE_DEVICES",
}  # fmt: skip
PASSED = PLACES | NETWORK | HARMLESS | RECORDED
PASSED_BEGIN = PLACES_BEGIN + NETWORK_BEGIN
FIXED = {
    # Plugins of pydantic may change what a config says; only to look for some costs every process 30 ms.
    "PYDANTIC_DISABLE_PLUGINS": "__all__",
    # GNU OpenMP lets waiting threads spin for millions of rounds. On 2 cores with one other busy process that made
    # training 14 times slower; a thousand rounds cost a tenth of the speed on a quiet machine.
    "GOMP_SPINCOUNT": "1000",
    # The order of a set of strings is the same in every process.
    "PYTHONHASHSEED": "0",
}


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment reaches a stage, and what is fixed."""
    passed = {
        name: value
        for name, value in environment.items()
        if name.upper() in PASSED or name.startswith(PASSED_BEGIN)
    }
    return {**passed, **FIXED}


def recorded_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What reaches a stage and can change the last bits of its result."""
    return {name: environment[name] for name in sorted(RECORDED & environment.keys())}


def seeing(gpu: str | None, environment: Mapping[str, str]) -> Mapping[str, str]:
    """An environment in which this GPU alone is seen; the same one where none is named."""
    return environment if gpu is None else {**environment, "CUDA_VISIBLE_DEVICES": gpu}
