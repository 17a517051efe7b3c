"""One self-contained HTML page that shows a comparison, or several: `python -m harness.report FOLDER…`.

source     what the page is made of: records, metrics, sampled texts, credit of tokens
curves     metrics.jsonl of several seeds as one curve with its band
theme      text that may be shown, the colours of the methods, matplotlib figures as inline SVG in the page's theme
plots      the figures
items      which problems flip between methods, and the texts that were sampled there
tokens     a training completion with each token's credit
figures    which figures a page has
page       puts everything into page.html.jinja with style.css
heat       methods by comparisons: the differences to the baseline
several    several comparisons on one page

The page holds no script and makes no request: its content security policy forbids both. All numbers are the
leaderboard's (harness.results) or plain means of what the runs wrote.
"""
