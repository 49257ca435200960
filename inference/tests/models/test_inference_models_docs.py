"""What may be said of a model is documented with its default."""

from __future__ import annotations

import json
import re
from pathlib import Path

from locex_inference.models.golden import read_golden
from locex_inference.models.options import ModelOptions
from locex_inference.models.repository import options_of

PAGE = (Path(__file__).parents[3] / "docs" / "inference_models.md").read_text(encoding="utf-8")


def test_every_option_is_documented_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| .{10,} \|$", PAGE, re.MULTILINE))
    for name, field in ModelOptions.model_fields.items():
        default = "–" if field.default in (None, [], {}) else f"`{json.dumps(field.default)}`"
        assert rows[name] == default, name


def test_the_examples_of_the_page_are_taken(tmp_path):
    golden, options = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "golden.json").write_text(golden)
    assert read_golden(tmp_path).inputs["x"].tolist() == [[1, 2]]
    made = options_of(json.loads(options))
    assert [step.id for step in made.preprocessing] == ["basic_norm", "expansion"]
    assert made.max_batch_size == 64
