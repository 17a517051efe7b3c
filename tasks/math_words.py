"""The closed lists of what may stand beside a value without changing it: units, currencies, labels, articles, counted
things.

A word that is in none of them keeps an answer from being the bare value: "never 25" and "25 gross" are not 25.
"""

from pathlib import Path


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ARTICLES = _words("a an the")

# what a count is of ("25 apples"): nouns that word problems count, one list so that nobody has to guess
COUNTED = _words(Path(__file__).with_name("counted_nouns.txt").read_text(encoding="utf-8"))

_METRIC_PREFIXES = ("", *"kcmdnMGµμTh")
_METRIC_UNITS = _words("m g s L l Hz W V A N J Pa eV mol C F Wh cal")
# capital and small letters matter; single letters count only in upright type: 4\,\mathrm{m} is 4 metres, 4m is a
# product
UNIT_SYMBOLS = frozenset(prefix + unit for prefix in _METRIC_PREFIXES for unit in _METRIC_UNITS) | _words(
    "in ft yd mi oz lb lbs gal qt pt h hr hrs min mins sec secs yr yrs mph kph kmph rpm fps cc sq cu ha rad deg Ω Å "
    "tbsp tsp mmHg atm bar ppm dB"
)
UNIT_WORDS = _words(
    "unit units square cubic sq cu meter meters metre metres centimeter centimeters centimetre centimetres "
    "millimeter millimeters kilometer kilometers kilometre kilometres micrometer micrometers nanometer nanometers "
    "inch inches foot feet yard yards mile miles acre acres hectare hectares gram grams kilogram kilograms kilo "
    "kilos kgs milligram milligrams ton tons tonne tonnes pound pounds ounce ounces liter liters litre litres "
    "milliliter milliliters gallon gallons quart quarts pint pints cup cups teaspoon teaspoons tablespoon "
    "tablespoons second seconds minute minutes hour hours day days week weeks weekday weekdays month months year "
    "years decade decades century centuries degree degrees radian radians celsius fahrenheit kelvin watt watts "
    "kilowatt kilowatts volt volts ampere amperes amp amps ohm ohms joule joules newton newtons pascal pascals hertz "
    "mole moles calorie calories knot knots byte bytes bit bits gigabyte gigabytes megabyte megabytes kilobyte "
    "kilobytes megabit megabits bushel bushels barrel barrels old"
)
CURRENCY_SIGNS = "$€£¥₹₩₽"
CURRENCY_WORDS = _words(
    "dollar dollars cent cents euro euros pound pounds penny pennies pence yen yuan rupee rupees peso pesos rs usd "
    "eur gbp jpy cny inr us bucks pesetas pfennigs"
)
PERCENT_WORDS = _words("percent percentage pct percents")
# behind a value: that it is all, or how it is meant
TRAILING_LABELS = _words(
    "total altogether overall left remaining each exactly more fewer extra possible tall long wide high deep away "
    "apart apiece daily weekly monthly yearly profit"
)
# behind a percentage
PERCENT_LABELS = _words(
    "increase decrease discount off loss gain interest chance probability markup tax tip decreased increased points"
)
# before a counted thing behind a value
ADJECTIVES = _words(
    "additional different distinct such ordered unordered nonempty positive negative real whole consecutive new full "
    "red blue green yellow black white pink brown orange small large big total more extra fewer possible integer "
    "prime odd even right acute obtuse equilateral isosceles"
)
# join two things behind a value: "10 miles per hour", "18 dollars a day", "25 of them"
JOINERS = _words("per a an of in every the by")
JOINED = _words("them these those all total it day week month year hour minute second person side length area time")
# in front of a value, before "is", "are", "equals" or a colon
LEADING_LABELS = _words(
    "answer result value number total sum area volume perimeter length width height radius diameter circumference "
    "distance speed time cost price profit amount probability ratio average mean median mode age weight angle slope "
    "product difference quotient remainder maximum minimum largest smallest greatest least final correct required "
    "desired possible surface our my your of in for all this that it there here these they combined exact expected "
    "numeric numerical"
)
COPULAS = _words("is are equals equal was be = : gives get have has")
SUBJECTS = _words("we you i one he she")
# alone in front of a value, without "is"
BARE_LEADS = _words("exactly only just so thus hence therefore then total answer value result final")
# "a total of 25": those whose "of" says how much, unlike "a quarter of 25"
TOTALS = _words("total amount profit cost price value")
SCALES = {
    **{"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12},
    **{"hundreds": 100, "thousands": 10**3, "millions": 10**6, "billions": 10**9, "trillions": 10**12, "dozens": 12},
}
SIGNS = _words("negative minus")

# of answers in words: what may stand in front of the word that matters, and behind it
WORD_LEADS = ARTICLES | _words(
    "on in at to due by it is they are answer option choice graph figure day direction statement line point"
)
WORD_TRAILS = _words(
    "function number integer direction day student person only answer option choice graph figure runner player one "
    "ward curve shape conic section triangle quadrilateral"
)
