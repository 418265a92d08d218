"""Number types with ranges, for annotations of constructors, which a configuration is checked against."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AllowInfNan

# `build.py` checks values of the configuration against the annotations of constructors before it builds anything.
PositiveInt = Annotated[int, Gt(0)]
Count = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0), AllowInfNan(False)]
NonNegativeFloat = Annotated[float, Ge(0), AllowInfNan(False)]
Fraction = Annotated[float, Ge(0), Le(1)]
Decay = Annotated[float, Gt(0), Lt(1)]
