"""Package dwf. Ranges are stated here; `constraints.txt` holds the versions that were tested."""

from setuptools import find_packages, setup

TRACK = ["wandb>=0.19,<1", "mlflow-skinny>=3,<4"]

setup(
    name="dwf",
    version="0.1.0",
    description="Zoos of neural networks, the distribution of their weights, new networks from it",
    license="MIT",
    python_requires=">=3.10",
    packages=find_packages(include=["dwf", "dwf.*"]),
    package_data={"dwf.evaluation.report": ["*.json"], "dwf.predictors.report": ["*.json"]},
    install_requires=[
        "torch>=2.9,<3",
        "torchvision>=0.24,<1",
        "deepspeed>=0.19,<1",
        "ray[tune]>=2.49,<3",
        "optuna>=4,<6",
        "torchdiffeq>=0.2.5,<0.3",
        "diffusers>=0.42,<1",
        "scipy>=1.14,<2",
        "submitit>=1.5.3,<2",
        "h5py>=3.12,<4",
        "isal>=1.6,<2",
        "mpi4py>=4,<5",
        "numpy>=2,<3",
        "Pillow>=10",
        "PyYAML>=6,<7",
        "tyro>=1,<2",
        "rich>=13,<16",
        "matplotlib>=3.9,<4",
        "foolbox>=3.3.4,<4",
        "scikit-learn>=1.6,<2",
        "lightgbm>=4.6,<5",
        "threadpoolctl>=3.5,<4",
        "safetensors>=0.5,<1",
        "tensorboard>=2.18,<3",
        "onnx>=1.20,<2",
        "onnxruntime>=1.24,<2",
        "onnxscript>=0.7,<1",
        "huggingface_hub>=1,<3",
        "jsonschema>=4.20,<5",
    ],
    entry_points={"console_scripts": ["dwf = dwf.__main__:main"]},
    extras_require={
        "track": TRACK,
        "pandas": ["pandas>=2.2,<4"],
        "dev": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff==0.17.6",
            "codespell>=2.3",
            "powerlaw>=2,<3",
            "mpich>=4.3,<5",  # 5.0 sends lines to Slurm that its pmi2 cuts, see docs/cluster.md
            "nbclient>=0.10,<1",
            "nbformat>=5.10,<6",
            "ipykernel>=7,<8",
            "pandas>=2.2,<4",
            *TRACK,
        ],
    },
)
