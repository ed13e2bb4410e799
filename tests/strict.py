"""The run-time type checker of the test session: beartype, with an int accepted where a float is."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
