import datetime

import mutations
import pytest

# All of them take half an hour on a slow machine: each day has a third. `python tests/mutations.py` tries all.
TODAY = datetime.date.today().toordinal() % 3


@pytest.mark.slow
@pytest.mark.parametrize("mutation", mutations.MUTATIONS[TODAY::3], ids=lambda mutation: mutation.what)
def test_the_tests_notice(mutation):
    assert mutations.is_noticed(mutation)


@pytest.mark.slow
def test_the_tests_pass_where_nothing_is_broken():
    assert not mutations.is_noticed(mutations.NO_CHANGE)


def test_each_change_is_of_one_place():
    for mutation in mutations.MUTATIONS:
        source = (mutations.ROOT / "jaxmnist" / mutation.file).read_text()
        assert source.count(mutation.before) == 1 and mutation.before != mutation.after
