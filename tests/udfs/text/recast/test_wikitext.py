from udfs.text.recast import READERS

# The published files have a blank at both ends of every line.
TEXT = "".join(
    f" {line} \n"
    for line in """
= Reed Bell =

The <unk> bell weighs 9 @.@ 5 tons .

= = History = =

It was cast in Orvane .
= not a title =
Nor = this = one .

= Empty =

= Marsh Wren ( bird ) =

It hums .
""".splitlines()
)


def test_articles_start_at_titles_between_blank_lines(write):
    bell, empty, wren = READERS["wikitext"](write("a.txt", TEXT))
    assert (bell["kind"], bell["title"]) == ("text", "Reed Bell")
    assert bell["text"] == (
        "= Reed Bell =\n\nThe <unk> bell weighs 9 @.@ 5 tons .\n\n= = History = =\n\nIt was cast in Orvane .\n\n"
        "= not a title =\n\nNor = this = one ."
    )
    assert (empty["kind"], empty["reason"]) == ("reject", "missing_text")
    assert (wren["title"], wren["text"]) == ("Marsh Wren ( bird )", "= Marsh Wren ( bird ) =\n\nIt hums .")


def test_text_before_the_first_title_is_an_article_without_one(write):
    lead, titled = READERS["wikitext"](write("a.txt", "Some lines .\n\n = A = \n\n text"))
    assert (lead["title"], lead["text"]) == ("", "Some lines .")
    assert (titled["title"], titled["text"]) == ("A", "= A =\n\ntext")


def test_bytes_that_are_not_utf8_cost_one_article(write):
    broken, whole = READERS["wikitext"](write("a.txt", b"= A =\n\n\xff\n\n = B = \n\n text"))
    assert (broken["kind"], broken["reason"]) == ("reject", "invalid_encoding")
    assert whole["title"] == "B"


def test_an_empty_file_has_no_articles(write):
    assert list(READERS["wikitext"](write("a.txt", " \n\n"))) == []
