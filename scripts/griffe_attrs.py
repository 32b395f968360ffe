"""An extension of griffe: the classes of attrs get the signature that they have at run time.

griffe reads the source alone, and knows dataclasses only. The reference of the site shows these signatures; a class's
docstring describes the fields.
"""

from typing import Any, Final

import griffe

_DECORATORS: Final = ("frozen", "define")


class Attrs(griffe.Extension):
    """Add `__init__` to each class that attrs makes, unless it has one."""

    def on_class(self, *, cls: griffe.Class, **_options: Any) -> None:  # noqa: ANN401  griffe's signature
        """Add `__init__` to a class."""
        decorators = [str(decorator.value) for decorator in cls.decorators]
        if "__init__" in cls.members or not any(text.startswith(_DECORATORS) for text in decorators):
            return
        keyword_only = any("kw_only=True" in text for text in decorators)
        kind = griffe.ParameterKind.keyword_only if keyword_only else griffe.ParameterKind.positional_or_keyword
        parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
        for field in cls.attributes.values():
            if field.annotation is None or "instance-attribute" not in field.labels:
                continue
            parameters.append(
                griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=_default(field.value))
            )
        init = griffe.Function("__init__", parameters=griffe.Parameters(*parameters), parent=cls)
        init.returns = "None"
        cls.set_member("__init__", init)


def _default(value: griffe.Expr | str | None) -> griffe.Expr | str | None:
    """Return the default of a field: the value itself, or the `default` or `factory` of a call of `field`."""
    if not isinstance(value, griffe.ExprCall) or str(value.function) != "field":
        return value
    for argument in value.arguments:
        if isinstance(argument, griffe.ExprKeyword) and argument.name == "default":
            return argument.value
        if isinstance(argument, griffe.ExprKeyword) and argument.name == "factory":
            return f"{str(argument.value).partition('[')[0]}()"
    return None
