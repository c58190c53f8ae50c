"""drsow: which pair of language models judges best."""
