"""What tests on the embedded model share: a mark for where it is not installed, and the dtype that is fast here."""

import importlib.util
from typing import Literal

import pytest
import torch

from lifealign.model.embedded import EMBEDDED_INSTALL, EMBEDDED_PACKAGE

needs_embedded = pytest.mark.skipif(
    importlib.util.find_spec(EMBEDDED_PACKAGE) is None,
    reason=f"the embedded model is not installed; {EMBEDDED_INSTALL}",
)

# Without bfloat16 instructions a product in bfloat16 takes four times as long as one in float32.
FAST_DTYPE: Literal["bfloat16", "float32"] = "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
