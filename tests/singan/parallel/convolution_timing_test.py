import jax

from singan.model.convolution import CONV_IMPLS
from singan.parallel import convolution_timing
from singan.parallel.convolution_timing import time_conv_impl, time_conv_impls, vmapped_impls


def test_forms_that_are_the_same_are_timed_once():
    assert "direct" not in vmapped_impls(4)  # it is the grouped one there
    assert set(vmapped_impls(4)) | {"direct"} == set(CONV_IMPLS)
    assert set(vmapped_impls(1)) == {"grouped", "shifted", "gathered"}  # one image: nothing to map over or to pack


def test_a_form_is_timed_with_its_derivatives():
    row = time_conv_impl("shifted", 5, 2, 2, "highest", seconds=0.0)
    assert (row["form"], row["side"], row["images"]) == ("shifted", 5, 2)
    assert row["ms_per_image"] > 0
    assert row["temporary_bytes"] > 0


def test_the_fastest_is_first_and_what_does_not_compile_is_passed_over(tiny_spec, monkeypatch):
    def timed(form, side, features, images, precision):
        if form == "packed":
            raise jax.errors.JaxRuntimeError("no")
        return {"form": form, "side": side, "features": features, "images": images, "ms_per_image": len(form)}

    monkeypatch.setattr(convolution_timing, "time_conv_impl", timed)
    spec = tiny_spec(3)
    rows = time_conv_impls(spec, 4)
    assert [row["form"] for row in rows] == sorted((form for form in vmapped_impls(4) if form != "packed"), key=len)
    assert {(row["side"], row["features"], row["images"]) for row in rows} == {(16, spec.width, 4)}
