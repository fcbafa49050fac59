"""Hypothesis strategies that several tests draw from."""

from hypothesis import strategies as st

# Printable, and longer than the 15 bytes at which NumPy's StringDType leaves its short form.
text_ids = st.lists(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")),
        min_size=1,
        max_size=40,
    ),
    min_size=1,
    max_size=30,
    unique=True,
)
integer_ids = st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=30, unique=True)
annotation_ids = st.one_of(text_ids, integer_ids)
