"""Reads the settings for a command, and turns what pydantic says about a bad one into plain lines.

Values never appear in the lines, since one may be a key.
"""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.commands.console import complain
from app.exit_codes import EXIT_BAD_SETTINGS
from app.settings import Settings


def read_settings(*, listens: bool = False) -> Settings:
    """The settings from the environment and `.env`. Exits with `EXIT_BAD_SETTINGS` and one line per mistake.

    For a command that `listens` an address that others reach without a key is a mistake too.
    """
    try:
        settings = Settings()
        lines = [settings.too_open] if listens and settings.too_open else []
        if not lines:
            return settings
    except ValidationError as error:
        lines = describe_mistakes(error)
    except (SettingsError, UnicodeDecodeError) as error:
        lines = [str(error)]
    complain("The settings (environment variables and .env) need a correction:")
    for line in lines:
        complain(f"  {line}")
    complain("Every setting is explained in .env.example.")
    raise SystemExit(EXIT_BAD_SETTINGS)


def describe_mistakes(error: ValidationError) -> list[str]:
    """One line for each setting that was refused: its name, and what is wrong with it."""
    return [_line(row["loc"], row["msg"]) for row in error.errors(include_input=False, include_url=False)]


def _line(place: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    name = ".".join(str(part) for part in place).upper()
    if text == "Extra inputs are not permitted":
        text = "there is no setting of this name"
    return f"{name}: {text}" if name else text
