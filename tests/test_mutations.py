import mutations
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.what)
def test_the_tests_notice(mutation):
    assert mutations.is_noticed(mutation)


@pytest.mark.slow
def test_the_tests_pass_where_nothing_is_broken():
    assert not mutations.is_noticed(mutations.NO_CHANGE)


def test_each_change_is_of_one_place():
    for mutation in mutations.MUTATIONS:
        source = (mutations.ROOT / "jaxmnist" / mutation.file).read_text()
        assert source.count(mutation.before) == 1 and mutation.before != mutation.after
