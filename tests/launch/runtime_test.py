"""Where compiled programs are kept between runs."""

import jax
import pytest

from launch import runtime


@pytest.fixture
def directory_of(monkeypatch, kept_in, tmp_path):
    """Returns the cache directory that JAX is given where the environment asks for one: directory_of(asked)."""

    def made(asked):
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(asked))
        with kept_in(tmp_path):
            runtime.use_compilation_cache()
            return jax.config.jax_compilation_cache_dir

    monkeypatch.chdir(tmp_path)
    return made


def test_a_directory_is_made(directory_of, tmp_path):
    assert directory_of(tmp_path / "a/b") == str(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_one_that_cannot_be_made_is_done_without(directory_of, tmp_path):
    (tmp_path / "file").touch()
    assert directory_of(tmp_path / "file/b") is None


@pytest.mark.parametrize("value", ["", "relative/cache", None])
def test_a_cache_that_is_no_absolute_path_is_the_home_s(monkeypatch, tmp_path, kept_in, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value)
    with kept_in(tmp_path / "other"):
        runtime.use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "home/.cache/medisingan/compiled")
    assert (tmp_path / "home/.cache/medisingan/compiled").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    ("images", "channels", "devices"), [(5, 32, 5), (20, 32, 8), (1, 64, 1), (5, 33, 1), (20, None, 1)]
)
def test_only_narrow_networks_train_on_several_cpu_devices(images, channels, devices, kept_in, tmp_path, capsys):
    with kept_in(tmp_path):
        assert runtime.start_jax(images, channels).size == devices
    said = f"one CPU device of {min(images, 8)} is used: several may train wide networks wrongly\n"
    assert capsys.readouterr().err == (said if 1 == devices < images else "")


def test_a_bucket_is_left_to_jax_and_makes_no_folder_of_its_name(directory_of, tmp_path):
    assert directory_of("gs://bucket/cache") == "gs://bucket/cache"
    assert list(tmp_path.iterdir()) == []
