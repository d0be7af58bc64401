"""Names → classes."""

from __future__ import annotations

import sys

import pytest

from tzrec.errors import ConfigError, MissingDependencyError
from tzrec.registry import Registry, load_by_path
from tzrec.utils.load_class import get_register_class_meta


@pytest.fixture
def shop(tmp_path, monkeypatch):
    (tmp_path / "registry_models.py").write_text("class TwoHead:\n    pass\n\nvalue = 3\n")
    (tmp_path / "registry_broken.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("registry_models", "registry_broken"):
        sys.modules.pop(name, None)


def test_classes_are_imported_on_first_use(shop):
    registry = Registry("model", {"TwoHead": "registry_models"})
    assert "TwoHead" in registry
    assert "registry_models" not in sys.modules
    cls = registry.get("TwoHead")
    assert cls.__name__ == "TwoHead"
    assert registry.get("TwoHead") is cls


def test_unknown_names_get_a_suggestion():
    registry = Registry("model", {"DeepFM": "x", "WideAndDeep": "y"})
    with pytest.raises(ConfigError, match="unknown model 'DeepFN'; did you mean 'DeepFM'"):
        registry.get("DeepFN")
    assert registry.names() == ["DeepFM", "WideAndDeep"]


def test_two_classes_of_one_name():
    registry = Registry("model")

    class Tower:
        pass

    first = registry.register(Tower)
    assert registry.register(first) is first

    def other():
        class Tower:
            pass

        return Tower

    with pytest.raises(ConfigError, match="two classes want to be the model 'Tower'"):
        registry.register(other())


def test_load_by_path(shop):
    assert load_by_path("registry_models.TwoHead").__name__ == "TwoHead"
    with pytest.raises(ConfigError, match="has no class 'TwoHed'; did you mean 'TwoHead'"):
        load_by_path("registry_models.TwoHed")
    with pytest.raises(ConfigError, match="has no class 'value'"):
        load_by_path("registry_models.value")
    with pytest.raises(ConfigError, match="is not a class path"):
        load_by_path("TwoHead")
    with pytest.raises(MissingDependencyError, match="no module 'shop_modells'"):
        load_by_path("shop_modells.TwoHead")
    # A module that is there, but whose own import fails, says so itself.
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_by_path("registry_broken.TwoHead")


def test_metaclass_registers_and_creates():
    classes: dict[str, type] = {}
    meta = get_register_class_meta(classes)
    Base = meta("Base", (), {})
    Child = meta("Child", (Base,), {})
    assert classes == {"Base": Base, "Child": Child}
    assert Base.create_class("Child") is Child
    with pytest.raises(ConfigError, match="did you mean 'Child'"):
        Base.create_class("Chil")


def test_metaclass_finds_classes_that_are_not_imported(shop):
    registry = Registry("model", {"TwoHead": "registry_models"})
    Base = get_register_class_meta({}, registry)("Base", (), {})
    assert Base.create_class("TwoHead").__module__ == "registry_models"


def test_interface_paths():
    from tzrec.config import edit_config, load_pipeline_config
    from tzrec.utils import config_util

    assert config_util.edit_config is edit_config
    assert config_util.load_pipeline_config is load_pipeline_config
    assert {"which_msg", "config_to_kwargs", "save_message"} <= set(config_util.__all__)
