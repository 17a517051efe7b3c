r"""One notation for what is written in many: Unicode, styles, spacing and TeX's short forms become plain LaTeX.

Nothing here decides what an answer means: `√2`, `\sqrt2` and `\large\sqrt{2}` become `\sqrt{2}`, and words stay in
`\text{}`.
"""

import functools
import html
import re

VULGAR = {
    "½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5), "⅘": (4, 5),
    "⅙": (1, 6), "⅚": (5, 6), "⅐": (1, 7), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8), "⅑": (1, 9), "⅒": (1, 10),
}  # fmt: skip
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "θ": "theta", "λ": "lambda", "μ": "mu",
    "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "ϕ": "phi", "ψ": "psi", "ω": "omega", "Δ": "Delta",
}  # fmt: skip
_CHARACTERS = {
    "−": "-", "–": "-", "‒": "-", "‐": "-", "‑": "-", "﹣": "-", "－": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "÷": "/", "∕": "/", "⁄": "/", "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ", "∪": r"\cup ", "⋃": r"\cup ", "∩": r"\cap ",
    "∈": r"\in ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "°": r"^\circ ", "º": r"^\circ ", "∠": r"\angle ", "∧": r"\land ", "∨": r"\lor ", "∣": r"\mid ",
    "→": r"\to ", "…": r"\ldots ", "’": "'", "‘": "'", "“": '"', "”": '"', "′": "'", "。": ".", "．": ".", "，": ",",
    "、": ",", "；": ";", "：": ":", "（": "(", "）": ")", "［": "[", "］": "]", "｛": "{", "｝": "}", "＋": "+",
    "＝": "=", "％": "%", "＄": "$", "￥": "¥", "＜": "<", "＞": ">", "／": "/", "\u2009": r"\,", "\u202f": r"\,",
    "\u200a": r"\,", "\u2006": r"\,", "\u00a0": " ", "\u2003": " ", "\u2002": " ", "\u3000": " ", "\u200b": "",
    "\u200c": "", "\u200d": "", "\ufeff": "", "\u2060": "", "∖": r"\setminus ", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
    "⌈": r"\lceil ", "⌉": r"\rceil ",
}  # fmt: skip
_TRANSLATED = str.maketrans(
    _CHARACTERS
    | {letter: f"\\{name} " for letter, name in _GREEK.items()}
    | {sign: rf"\frac{{{top}}}{{{bottom}}}" for sign, (top, bottom) in VULGAR.items()}
    | {chr(0xFF10 + digit): str(digit) for digit in range(10)}  # full width, as Chinese keyboards write them
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_LOWERED = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT_SIGN = re.compile(r"([√∛∜])\s*(\([^()]*\)|\{[^{}]*\}|[0-9]+(?:\.[0-9]+)?|[A-Za-z]|\\[A-Za-z]+)")
_ENTITY = re.compile(r"&(?:lt|gt|nbsp|le|ge|minus|times|amp|#[0-9]{1,5});")
_UNION_LETTER = re.compile(r"(?<=[)\]])\s*(?:U|\\text\s*\{\s*U\s*\})\s*(?=[(\[])")
_ROOT_DEGREES = {"√": "", "∛": "[3]", "∜": "[4]"}

TEXT = r"\\(?:text|textnormal|textrm|textsf|texttt|textup|textmd|textsc|mathrm|operatorname|mbox|hbox|rm)"
# names that are functions or constants, whatever they are wrapped in
_FUNCTIONS = "sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|log|ln|lg|exp|gcd|lcm|max|min|det|lim|deg|pi"
_WRAPPED_FUNCTION = re.compile(rf"{TEXT}\s*\*?\{{\s*({_FUNCTIONS})\s*\}}")
_BARE_FUNCTION = re.compile(r"(?<![A-Za-z\\{])(sin|cos|tan|cot|sec|csc|log|ln|sqrt|pi|infinity|inf)(?![A-Za-z])")
_TEXT_STYLE = re.compile(r"\\(?:textbf|textit|textsl|emph)(?![A-Za-z])")
_STYLE_GROUP = re.compile(
    r"\\(?:mathbf|mathit|mathsf|mathtt|mathcal|mathnormal|boldsymbol|bm|pmb|underline|uline|boxed|fbox|ensuremath|"
    r"displaylines|smash|mathop|mathord|bold)\s*(?=\{)"
)
_COLOR = re.compile(r"\\(?:textcolor|color|colorbox)\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}")
_STYLE = re.compile(
    r"\\(?:left|right|middle|displaystyle|textstyle|scriptstyle|limits|nolimits|bf|bfseries|it|itshape|sf|tt|"
    r"normalsize|tiny|scriptsize|footnotesize|small|large|Large|LARGE|huge|Huge|[bB]igg?[lrm]?|mathstrut|strut|"
    r"centering|mathbf|mathit|boldsymbol|bm|nonumber|notag|rm)(?![A-Za-z])"
)
_SPACE_ARGUMENT = re.compile(r"\\(?:hspace|vspace|hskip|phantom|hphantom|vphantom)\s*\*?\s*\{[^{}]*\}")
_LABEL = re.compile(r"\\(?:label|tag)\s*\*?\s*\{[^{}]*\}")
_ROW_SPACE = re.compile(r"\\\\\s*\*?\s*\[\s*-?[0-9.]*\s*(?:pt|ex|em|mm|cm|in|mu|\\[a-z]+)\s*\]")
_ROW_END = re.compile(r"(?:\\\\\s*|\\cr(?![A-Za-z])\s*)+(?=\\end\b)")
_TRAILING_ROW = re.compile(r"(?:\\\\\s*)+$")
_ALIGNMENT = re.compile(r"\\begin\{(aligned|align\*?|gathered|split|equation\*?)\}(.*)\\end\{\1\}", re.S)
_ARRAY = re.compile(
    r"\\begin\{(array|[bBpvV]?matrix\*?|smallmatrix|psmallmatrix|bsmallmatrix)\}(?:\s*\[[^\[\]]*\])?(?:\s*\{[clr|\s]*\})?"
)
_FENCED = re.compile(r"[(\[]\s*\\begin\{matrix\}((?:(?!\\begin|\\end).)*)\\end\{matrix\}\s*[)\]]", re.S)
_SYNONYMS = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "nicefrac": r"\frac", "sfrac": r"\frac", "flatfrac": r"\frac",
    "dbinom": r"\binom", "tbinom": r"\binom", "leq": r"\le", "leqslant": r"\le", "leqq": r"\le", "geq": r"\ge",
    "geqslant": r"\ge", "geqq": r"\ge", "neq": r"\ne", "lt": "<", "gt": ">", "bigcup": r"\cup", "bigcap": r"\cap",
    "varnothing": r"\emptyset", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")",
    "colon": ":", "wedge": r"\land", "vee": r"\lor", "vert": "|", "lvert": "|", "rvert": "|", "degree": r"^\circ", "degrees": r"^\circ",
    "textdegree": r"^\circ", "div": "/", "ast": "*", "dots": r"\ldots", "cdots": r"\ldots", "textdollar": r"\$", "euro": "€",
    "pounds": "£", "texteuro": "€", "sterling": "£", "yen": "¥", "thickapprox": r"\approx", "simeq": r"\approx", "backslash": r"\setminus",
    "textbackslash": r"\setminus", "varphi": r"\phi", "varepsilon": r"\epsilon", "imath": "i", "qquad": " ", "quad": " ", "enspace": " ",
    "thinspace": r"\,", "negthinspace": r"\!", "infin": r"\infty", "R": r"\mathbb{R}", "Z": r"\mathbb{Z}", "reals": r"\mathbb{R}",
    "longrightarrow": r"\to", "rightarrow": r"\to", "operatorname*": r"\operatorname", "percent": r"\%",
}  # fmt: skip
_COMMAND = re.compile(r"(?<!\\)((?:\\\\)*)\\([A-Za-z]+\*?)")
_BLACKBOARD = re.compile(r"\\(?:mathbb|mathds|Bbb|bbold)\s*(?:\{\s*([A-Z])\s*\}|([A-Z]))")
_ARGUMENT = re.compile(r"\{|[0-9A-Za-z]|\\[A-Za-z]+")
_DEGREE_OF_ROOT = re.compile(r"\[[^\[\]{}]*\]\s*")
_SHORT = re.compile(r"\\(frac|binom|sqrt)(?![A-Za-z])\s*")
_CIRCLE = re.compile(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|\{\s*\^\\circ\s*\}|o(?![A-Za-z]))")
_TRIG = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_DEGREES_IN_TRIG = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*\\circ(?![A-Za-z])")
_MAX_STYLES = 100  # in one answer


@functools.lru_cache(maxsize=4096)  # the same few answers come again and again
def notation(answer: str) -> str:
    """The answer in plain LaTeX: no colours, sizes or bold type, TeX's short arguments in braces, ASCII signs."""
    text = _from_unicode(answer)
    text = _ROW_SPACE.sub(lambda _: r"\\", _LABEL.sub(" ", _SPACE_ARGUMENT.sub(" ", text)))
    text = _unstyled(text)
    text = _COMMAND.sub(lambda match: match[1] + _synonym(match[2]), text)
    text = _CIRCLE.sub(lambda _: r"^\circ ", _BLACKBOARD.sub(lambda m: rf"\mathbb{{{m[1] or m[2]}}}", text))
    text = (
        text.replace("{:}", ":")
        .replace("{=}", "=")
        .replace("{-}", "-")
        .replace("{,}", ",")
        .replace(r"\!:", ":")
        .replace(r":\!", ":")
        .replace(r"{\,}", r"\,")
    )
    text = _WRAPPED_FUNCTION.sub(lambda match: rf"\{match[1]} ", text)
    if "\\text" not in text and "mbox" not in text:
        text = _BARE_FUNCTION.sub(lambda m: {"infinity": r"\infty ", "inf": r"\infty "}.get(m[1], rf"\{m[1]} "), text)
    text = _UNION_LETTER.sub(lambda _: r"\cup ", _matrices(_full_arguments(text)))
    if _TRIG.search(text):
        text = _DEGREES_IN_TRIG.sub(lambda match: rf"(\frac{{{match[1]}\pi}}{{180}})", text)
    return _TRAILING_ROW.sub("", text).strip()


def _from_unicode(text: str) -> str:
    if _ENTITY.search(text):
        text = html.unescape(text)
    if text.isascii():
        return text
    text = _RAISED.sub(lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}", text)
    text = _LOWERED.sub(lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}", text)
    text = _ROOT_SIGN.sub(lambda m: rf"\sqrt{_ROOT_DEGREES[m[1]]}{{{m[2].strip('{}')}}}", text)
    return text.translate(_TRANSLATED)


def _unstyled(text: str) -> str:
    """Without colours, sizes, bold type and inner boxes; what they hold stays, as a group of its own."""
    text = _TEXT_STYLE.sub(lambda _: r"\text", _COLOR.sub(" ", text))
    for _ in range(_MAX_STYLES):
        before = text
        text = _without_group(text)
        if text == before:
            break
    return _STYLE.sub(" ", text)


def _without_group(text: str) -> str:
    r"""`\mathbf{25}` is 25: a style's group loses its braces, except where they hold an exponent together."""
    match = _STYLE_GROUP.search(text)
    if match is None:
        return text
    close = matching_brace(text, match.end())
    if close is None:
        return text[: match.start()] + text[match.end() :]
    inner = text[match.end() + 1 : close]
    raised = text[: match.start()].rstrip().endswith(("^", "_")) or text[close + 1 :].lstrip().startswith(
        ("^", "_", "{")
    )
    inner = f"{{{inner}}}" if raised and len(inner) > 1 else f" {inner} " if re.match(r"[A-Za-z]{2}", inner) else inner
    return text[: match.start()] + inner + text[close + 1 :]


def matching_brace(text: str, opening: int) -> int | None:
    """Where the group that begins at `opening` ends; None if it never does."""
    depth, position = 0, opening
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    return None


def _matching_parenthesis(text: str, opening: int) -> int | None:
    depth = 0
    for position in range(opening, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return position
    return None


def _synonym(name: str) -> str:
    return _SYNONYMS.get(name, f"\\{name}")


def _full_arguments(text: str) -> str:
    r"""`\frac12`, `\frac{18}5`, `\sqrt[3]2` and `\binom52` with all their braces."""
    pieces, position = [], 0
    for match in _SHORT.finditer(text):
        if match.start() < position:
            continue
        end, parts = match.end(), []
        degree = _DEGREE_OF_ROOT.match(text, end) if match[1] == "sqrt" else None
        end = degree.end() if degree else end
        for _ in range(1 if match[1] == "sqrt" else 2):
            argument = _ARGUMENT.match(text, end)
            if (
                match[1] == "sqrt"
                and text.startswith("(", end)
                and (close := _matching_parenthesis(text, end)) is not None
            ):
                parts.append(f"{{{_full_arguments(text[end + 1 : close])}}}")
                end = close + 1
                continue
            if argument is None or argument[0] == "{":
                close = matching_brace(text, end) if argument else None
                if close is None:
                    break
                parts.append(f"{{{_full_arguments(text[end + 1 : close])}}}")
                end = close + 1
            else:
                parts.append(f"{{{argument[0]}}}")
                end = argument.end()
            while text.startswith(" ", end) and len(parts) == 1 and match[1] != "sqrt":
                end += 1
        else:
            pieces += [text[position : match.start()], f"\\{match[1]}", degree[0].strip() if degree else "", *parts]
            position = end
    return "".join([*pieces, text[position:]])


def _matrices(text: str) -> str:
    r"""Every kind of matrix as `\begin{matrix}`, without fences, except determinants; aligned lines
    without alignment.
    """
    if r"\begin" not in text:
        return text
    text = _ALIGNMENT.sub(lambda match: match[2].replace("&", ""), text)
    text = _ROW_END.sub("", re.sub(r"\\hline(?![A-Za-z])", "", text))
    if re.search(r"\\begin\{[vV]matrix", text):
        return text
    text = _ARRAY.sub(lambda _: r"\begin{matrix}", text)
    text = re.sub(r"\\end\{(?:array|[bBp]?matrix\*?|[pb]?smallmatrix)\}", lambda _: r"\end{matrix}", text)
    return _FENCED.sub(lambda match: rf"\begin{{matrix}}{match[1]}\end{{matrix}}", text)
