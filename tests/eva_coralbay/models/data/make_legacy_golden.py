"""Writes the outputs of a Swin transformer of MONAI before 1.5.0, the reference of `legacy`.

In an environment of its own, since that MONAI needs older packages:

    uv venv --python 3.11 /path/to/environment
    uv pip install --python /path/to/environment "monai==1.4.0" "numpy<2" "torch<2.6" einops \
        safetensors
    /path/to/environment/bin/python tests/eva_coralbay/models/data/make_legacy_golden.py
"""

import pathlib

import legacy_formula
import monai
import torch
from monai.networks.nets import swin_unetr
from safetensors.torch import save_file


def main():
    """Runs the network of the installed MONAI and writes the golden file beside this script."""
    if tuple(map(int, monai.__version__.split(".")[:2])) >= (1, 5):
        raise SystemExit(f"MONAI {monai.__version__} has the new patch merging: install 1.4.0.")
    network = (
        swin_unetr.SwinTransformer(
            in_chans=1,
            embed_dim=legacy_formula.FEATURE_SIZE,
            window_size=(7, 7, 7),
            patch_size=(2, 2, 2),
            depths=(2, 2, 2, 2),
            num_heads=(3, 6, 12, 24),
            use_v2=True,
        )
        .double()
        .eval()
    )
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            values = legacy_formula.weight(name, tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(values))
        states = network(torch.from_numpy(legacy_formula.volume()))
    golden = {f"state{index}": state.contiguous() for index, state in enumerate(states[2:], 2)}
    metadata = {"monai": monai.__version__, "torch": torch.__version__}
    path = pathlib.Path(__file__).with_name("legacy_states.safetensors")
    save_file(golden, path, metadata)
    print(path, {name: tuple(state.shape) for name, state in golden.items()})


if __name__ == "__main__":
    main()
