"""Package dwf. Ranges are stated here; `constraints.txt` holds the versions that were tested."""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

EXTRAS = {
    "cluster": ["submitit>=1.5.3,<2", "ray[tune]>=2.49,<3", "optuna>=4,<6"],
    "deepspeed": ["deepspeed>=0.19,<1"],
    "mpi": ["mpi4py>=4,<5"],
    "recurrent": ["mambapy>=1.2,<2"],
    "export": [
        "onnx>=1.20,<2",
        "onnxruntime>=1.24,<2",
        "onnxscript>=0.7,<1",
        "huggingface_hub>=1,<3",
    ],
    "track": ["tensorboard>=2.18,<3", "wandb>=0.19,<1", "mlflow-skinny>=3,<4"],
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
        "sphinx>=9,<10",
        "furo>=2025.12,<2027",
        "myst-parser>=5.2,<6",
    ],
}
EXTRAS["all"] = [each for extra in EXTRAS.values() for each in extra]


class BuildWithFiles(build_py):
    """Copies presets and Slurm scripts into the package; see `dwf/shipped.py`.

    Not by `package_dir`: that would make editable installs go through an import hook.
    """

    def run(self):
        """Build the package, then put the copies beside it."""
        super().run()
        if not self.editable_mode:
            for folder in ("configs", "slurm"):
                self.copy_tree(folder, f"{self.build_lib}/dwf/files/{folder}")


setup(
    name="dwf",
    version="0.1.0",
    description="Zoos of neural networks, the distribution of their weights, new networks from it",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the dwf authors",
    license="MIT",
    keywords=[
        "weight-space learning",
        "model zoos",
        "flow matching",
        "neural network weights",
        "Git Re-Basin",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Operating System :: MacOS",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    # Of the versions in constraints.txt: 3.11 to 3.14, see docs/install.md. Tested on 3.11.
    python_requires=">=3.11",
    packages=find_packages(include=["dwf", "dwf.*"]),
    package_data={"dwf.evaluation.report": ["*.json"], "dwf.predictors.report": ["*.json"]},
    cmdclass={"build_py": BuildWithFiles},
    install_requires=[
        "torch>=2.9,<3",
        "torchvision>=0.24,<1",
        "torchdiffeq>=0.2.5,<0.3",
        "diffusers>=0.42,<1",
        "scipy>=1.14,<2",
        "h5py>=3.12,<4",
        "isal>=1.6,<2",
        "numpy>=2,<3",
        "pandas>=2.2,<4",
        "Pillow>=10",
        "PyYAML>=6,<7",
        "tyro>=1,<2",
        "rich>=13,<16",
        "matplotlib>=3.9,<4",
        "fonttools>=4.50,<5",
        "foolbox>=3.3.4,<4",
        "scikit-learn>=1.6,<2",
        "lightgbm>=4.6,<5",
        "threadpoolctl>=3.5,<4",
        "safetensors>=0.5,<1",
        "jsonschema>=4.20,<5",
    ],
    entry_points={"console_scripts": ["dwf = dwf.__main__:main"]},
    extras_require=EXTRAS,
)
