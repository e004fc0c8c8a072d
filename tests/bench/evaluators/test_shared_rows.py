from __future__ import annotations

from bench.evaluators.shared_rows import (
    Group,
    Row,
    batches,
    in_one_row,
    make_rows,
    one_row_batches,
    share_beginnings,
    share_of,
)


def requests(*pairs: tuple[str, str]) -> list[tuple[str, list[int], list[int]]]:
    """Letters stand for tokens."""
    return [("", [ord(one) for one in context], [ord(one) for one in continuation]) for context, continuation in pairs]


def words(row: Row) -> tuple[str, list[str]]:
    return "".join(map(chr, row.context)), ["".join(map(chr, reply.tail)) for reply in row.replies]


def rows(*contexts: str) -> list[Row]:
    return make_rows(requests(*((context, "x") for context in contexts)), 100, packed=True)


def test_one_context_is_one_row_with_the_continuations_behind_it() -> None:
    """The last token of a continuation is predicted, never seen: one-token answers A and B need no tail, "Ced" has "Ce"."""
    asked = requests(("abc", "A"), ("abc", "B"), ("abc", "Ced"), ("ab", "c"))
    made = make_rows(asked, 100, packed=True)
    assert [words(row) for row in made] == [("abc", ["", "", "Ce"]), ("ab", [""])]
    assert [(row.length, row.sequences, row.shareable) for row in made] == [(5, 1, 2), (2, 1, 1)]
    assert [reply.place for row in made for reply in row.replies] == [0, 1, 2, 3]


def test_rows_of_their_own_are_seen_up_to_the_last_token() -> None:
    """abc + "Ced" shows abcCe, whose last three places predict it; abc + "A" shows abc, which "ab" + "cA" shows too."""
    made = make_rows(requests(("abc", "A"), ("abc", "Ced"), ("ab", "cA")), 100, packed=False)
    assert [words(row) for row in made] == [("abc", ["", ""]), ("abcCe", [""])]
    assert [[reply.inside for reply in row.replies] for row in made] == [[1, 2], [3]]
    assert [row.shareable for row in made] == [1, 2]


def test_too_long_rows_lose_tokens_on_the_left() -> None:
    """A model that sees 4 tokens is shown the last 4 before the answer's last: of abcdef + XY, defX; of abcdef + X, cdef."""
    made = make_rows(requests(("abcdef", "XY"), ("abcdef", "X")), 4, packed=True)
    assert [words(row) for row in made] == [("def", ["X"]), ("cdef", [""])]
    alone = make_rows(requests(("abcdef", "XY"), ("abcdef", "X")), 4, packed=False)
    assert [words(row) for row in alone] == [("defX", [""]), ("cdef", [""])]


def test_a_beginning_is_shared_where_that_saves_more_than_its_pass_costs() -> None:
    """Two subjects of three rows, 8 tokens alike in each, one token over both; a pass costs 4.

    By subject: 2 · (2 · 8 − 4) = 24 tokens saved; all as one group: 5 · 1 − 4 = 1.
    """
    asked = rows(*(f"z{subject * 7}{question}" for subject in "AB" for question in ("12", "34", "56")))
    found = share_beginnings(asked, pass_tokens=4)
    assert [(group.shared, len(group.rows)) for group in found] == [(8, 3), (8, 3)]
    assert {words(row)[0][1] for row in found[0].rows} == {"A"}


def test_a_few_longer_beginnings_do_not_break_a_group() -> None:
    """Four rows share 8 tokens and two of them 10: one group saves 3 · 8 − 4 = 20, that pair alone 10 − 4 = 6."""
    found = share_beginnings(rows("shared--aax", "shared--aay", "shared--bzx", "shared--czx"), pass_tokens=4)
    assert [(group.shared, len(group.rows)) for group in found] == [(8, 4)]


def test_rows_that_share_too_little_stay_in_one_group_without_a_cache() -> None:
    found = share_beginnings(rows("abc", "abd", "xyz"), pass_tokens=4)
    assert [(group.shared, len(group.rows)) for group in found] == [(0, 3)]


def test_the_places_that_predict_are_never_shared() -> None:
    """Of "aaaa" and "aaaaaaaa" four tokens are alike, but the fourth predicts the first row's answer."""
    found = share_beginnings(rows("aaaa", "aaaaaaaa"), pass_tokens=0)
    assert [(group.shared, len(group.rows)) for group in found] == [(3, 2)]


def test_deeply_nested_beginnings_end() -> None:
    asked = rows(*("a" * length for length in range(1, 2000)))
    found = share_beginnings(asked)
    assert sum(len(group.rows) for group in found) == len(asked)


def test_batches_trade_padding_against_passes() -> None:
    """Lengths 20, 19, 5, 4 in one batch cost 80 tokens and a pass of 10; cut in two, 40 + 10 and 10 + 10."""
    group = Group(0, rows("a" * 20, "b" * 5, "c" * 19, "d" * 4))
    cut = batches(group, 8, pass_tokens=10)
    assert [[row.length for row in batch] for batch in cut] == [[20, 19], [5, 4]]
    assert [[row.length for row in batch] for batch in batches(group, 8, pass_tokens=100)] == [[20, 19, 5, 4]]


def test_a_batch_counts_the_rows_that_plain_evaluation_would_hold() -> None:
    """Four continuations of two tokens are four plain rows, so two such contexts fill a batch of 8; five exceed one of 4."""
    four = make_rows(
        requests(*((context, answer) for context in "abc" for answer in ("Aa", "Bb", "Cc", "Dd"))), 9, True
    )
    assert [len(batch) for batch in batches(Group(0, four), 8, pass_tokens=100)] == [1, 2]
    assert [len(batch) for batch in batches(Group(0, four), 2, pass_tokens=100)] == [1, 1, 1]


def test_one_row_batches_are_even_and_hold_no_more_than_plain_ones() -> None:
    """Behind 2 common tokens 3, 3, 3 and 5 own ones; 2 rows of 7 leave room for 12: 14 tokens make two batches.

    With 4 rows of 7 there is room for all.
    """
    group = Group(2, rows("zzaaa", "zzbbb", "zzccc", "zzddddd"))
    lengths = [[row.length - 2 for row in batch] for batch in one_row_batches(group, 2)]
    assert lengths == [[3, 3, 3], [5]]
    assert len(one_row_batches(group, 4)) == 1
    assert [len(batch) for batch in one_row_batches(group, 1)] == [1, 1, 1, 1]


def test_groups_share_a_row_as_long_as_it_has_room() -> None:
    """Tokens: 2 + 1 + 3 = 6, then 5, then 2 + 4 = 6. The longest rows are 5 tokens, in the third group 6: rooms of 10, 15, 18."""
    groups = [Group(2, rows("zza", "zzbbb")), Group(0, rows("abcde")), Group(2, rows("yycccc"))]
    for batch_size, most, wanted in ((2, 99, 1), (3, 99, 3), (3, 16, 2), (3, 4, 1), (1, 99, 1)):
        assert len(in_one_row(groups, batch_size, most)) == wanted


def test_a_group_with_tails_stands_alone() -> None:
    tails = Group(0, make_rows(requests(("abc", "Ced")), 100, packed=True))
    plain = Group(0, rows("abcde"))
    assert tails.has_tails
    assert in_one_row([tails, plain], 9, 99) == [tails]
    assert in_one_row([plain, tails], 9, 99) == [plain]


def test_processes_share_groups_out_by_tokens_and_keep_beginnings_together() -> None:
    """Five rows of one token of their own: the first half of them is two, and the group of three is cut there."""
    groups = [Group(4, rows("aaaa1", "aaaa2", "aaaa3")), Group(0, rows("b", "c"))]
    shares = [share_of(groups, rank, 2, None) for rank in range(2)]
    assert [[(one.shared, [words(row)[0] for row in one.rows]) for one in share] for share in shares] == [
        [(4, ["aaaa1", "aaaa2"])],
        [(4, ["aaaa3"]), (0, ["b", "c"])],
    ]


def test_processes_share_whole_batches_out() -> None:
    """Batches of 2, 1, 1 and 1 tokens: the middle of the first lies in the first half. They are left as they are."""
    groups = [Group(4, rows("aaaa1", "aaaa2", "aaaa3")), Group(0, rows("b", "c"))]

    def cut(group: Group) -> list[list[Row]]:
        return [group.rows[:2], group.rows[2:]] if group.shared else [[row] for row in group.rows]

    shares = [share_of(groups, rank, 2, cut) for rank in range(2)]
    assert [[(one.shared, [words(row)[0] for row in one.rows]) for one in share] for share in shares] == [
        [(4, ["aaaa1", "aaaa2"])],
        [(4, ["aaaa3"]), (0, ["b"]), (0, ["c"])],
    ]
    assert all(one.one_batch for share in shares for one in share)


def test_a_batch_without_tails_is_still_one_of_a_group_with_tails() -> None:
    (group,) = share_beginnings(make_rows(requests(("a", "x"), ("b", "xyz")), 100, packed=True))
    found = share_of([group], 0, 1, lambda one: [[row] for row in one.rows])
    assert [one.has_tails for one in found] == [True, True]


def test_more_processes_than_rows_leave_some_without_any() -> None:
    groups = [Group(0, rows("b", "c"))]
    shares = [share_of(groups, rank, 4, None) for rank in range(4)]
    assert sorted(words(row)[0] for share in shares for one in share for row in one.rows) == ["b", "c"]
    assert sum(not share for share in shares) == 2
    assert share_of([], 0, 2, None) == []
