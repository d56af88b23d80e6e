import jax

from singan.model.convolution import FORMS
from singan.parallel import convolution_timing
from singan.parallel.convolution_timing import FormTime, time_form, time_forms, vmapped_forms


def test_forms_that_are_the_same_are_timed_once():
    assert "direct" not in vmapped_forms(4)  # it is the grouped one there
    assert set(vmapped_forms(4)) | {"direct"} == set(FORMS)
    assert set(vmapped_forms(1)) == {"grouped", "shifted", "gathered"}  # one image: nothing to map over or to pack


def test_a_form_is_timed_with_its_derivatives():
    row = time_form("shifted", 5, 2, 2, "highest", seconds=0.0)
    assert (row.form, row.side, row.images) == ("shifted", 5, 2)
    assert row.ms_per_image > 0
    assert row.temporary_bytes > 0


def test_the_fastest_is_first_and_what_does_not_compile_is_passed_over(tiny_spec, monkeypatch):
    def timed(form, side, features, images, precision):
        if form == "packed":
            raise jax.errors.JaxRuntimeError("no")
        return FormTime(form, side, features, images, precision, float(len(form)), 0.0, 0)

    monkeypatch.setattr(convolution_timing, "time_form", timed)
    spec = tiny_spec(3)
    rows = time_forms(spec, 4)
    assert [row.form for row in rows] == sorted((form for form in vmapped_forms(4) if form != "packed"), key=len)
    assert {(row.side, row.features, row.images) for row in rows} == {(16, spec.width, 4)}
