"""What the simulator can say about common notebook topics, so that a demo reads well. Everything else gets a plan.

Each topic is a few true sentences, steps, code and a formula; none of it comes from a model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One subject: the words it is known by, and the parts an answer is made from."""

    words: frozenset[str]
    title: str
    idea: str
    points: tuple[str, ...]
    language: str
    code: str
    math: str
    table: tuple[tuple[str, ...], ...]


def _topic(words: str, title: str, idea: str, points: tuple[str, ...], **parts: object) -> Topic:
    return Topic(frozenset(words.split()), title, idea, points, **parts)  # pyright: ignore[reportArgumentType]


TOPICS = (
    _topic(
        "wal sqlite write-ahead journal checkpoint",
        "Write-ahead logging in SQLite",
        "With WAL, SQLite appends changes to a second file instead of overwriting pages in place. Readers keep seeing "
        "the database as it was when they began, so they do not block the writer and the writer does not block them.",
        (
            "A commit is one append to the `-wal` file.",
            "Readers look a page up in the WAL first, then in the database file.",
            "A *checkpoint* copies pages back, by default once the WAL holds 1,000 of them.",
            "There is still only **one writer at a time**.",
        ),
        language="python",
        code="import sqlite3\n\ndb = sqlite3.connect('calls.db')\ndb.execute('PRAGMA journal_mode=WAL')\n"
        "db.execute('PRAGMA synchronous=NORMAL')\ndb.execute('PRAGMA busy_timeout=5000')",
        math=r"t_{\text{commit}} \approx t_{\text{append}} + \frac{t_{\text{checkpoint}}}{n_{\text{commits}}}",
        table=(
            ("Mode", "Readers during a write", "Files"),
            ("`DELETE`", "blocked while it commits", "`-journal`"),
            ("`WAL`", "go on", "`-wal`, `-shm`"),
        ),
    ),
    _topic(
        "gradient descent optimizer learning-rate sgd",
        "Gradient descent",
        "Gradient descent walks downhill: it takes a step against the gradient of the loss, looks again, and repeats.",
        (
            "Too large a learning rate overshoots and may diverge.",
            "Too small a one wastes steps.",
            "Mini-batches trade an exact gradient for many cheap ones.",
        ),
        language="python",
        code="def descend(grad, x, rate=0.1, steps=100):\n    for _ in range(steps):\n        x = x - rate * grad(x)\n"
        "    return x\n\ndescend(lambda x: 2 * (x - 3), 0.0)  # -> 3.0",
        math=r"\theta_{t+1} = \theta_t - \eta\,\nabla_\theta L(\theta_t)",
        table=(
            ("Variant", "Gradient from", "Memory"),
            ("Batch", "all rows", "none"),
            ("SGD", "one mini-batch", "none"),
            ("Adam", "one mini-batch", "two moments a weight"),
        ),
    ),
    _topic(
        "fourier fft frequency spectrum",
        "The Fourier transform",
        "The Fourier transform writes a signal as a sum of waves, and tells how much of each frequency is in it.",
        (
            "Sharp edges in time need many frequencies.",
            "The FFT computes it in $O(n \\log n)$ instead of $O(n^2)$.",
            "Sample at more than twice the highest frequency, or it folds back (*aliasing*).",
        ),
        language="python",
        code="import numpy as np\n\nt = np.linspace(0, 1, 1000, endpoint=False)\nsignal = np.sin(2 * np.pi * 50 * t)\n"
        "spectrum = np.abs(np.fft.rfft(signal))\nnp.fft.rfftfreq(t.size, 1 / 1000)[spectrum.argmax()]  # -> 50.0",
        math=r"\hat f(\xi) = \int_{-\infty}^{\infty} f(x)\,e^{-2\pi i x \xi}\,dx",
        table=(("In time", "In frequency"), ("shift", "phase"), ("convolution", "product"), ("narrow", "wide")),
    ),
    _topic(
        "bayes bayesian posterior prior likelihood",
        "Bayes' rule",
        "Bayes' rule turns what a hypothesis says about the data into what the data say about the hypothesis.",
        (
            "The *prior* is what was believed before.",
            "The *likelihood* is how well the hypothesis predicts the data.",
            "A rare condition stays unlikely after one positive test.",
        ),
        language="python",
        code="prior, sensitivity, specificity = 0.01, 0.95, 0.90\npositive = sensitivity * prior\n"
        "positive += (1 - specificity) * (1 - prior)\n"
        "round(sensitivity * prior / positive, 3)  # -> 0.088",
        math=r"P(H \mid D) = \frac{P(D \mid H)\,P(H)}{P(D)}",
        table=(("Term", "Reads"), ("$P(H)$", "prior"), ("$P(D\\mid H)$", "likelihood"), ("$P(H\\mid D)$", "posterior")),
    ),
    _topic(
        "pandas dataframe groupby csv aggregate",
        "Grouping in pandas",
        "`groupby` splits a frame by key, applies a function to each part, and puts the results together again.",
        (
            "Name the result columns with `agg(name=(column, function))`.",
            "`observed=True` leaves out categories that do not occur.",
            "`transform` keeps the length of the input; `agg` shrinks it.",
        ),
        language="python",
        code="import pandas as pd\n\nframe = pd.DataFrame({'model': ['a', 'a', 'b'], 'cost': [1.0, 3.0, 2.0]})\n"
        "frame.groupby('model').agg(calls=('cost', 'size'), total=('cost', 'sum'))",
        math=r"\bar x_g = \frac{1}{n_g}\sum_{i \in g} x_i",
        table=(("Method", "Rows out"), ("`agg`", "one a group"), ("`transform`", "as many as in"), ("`apply`", "any")),
    ),
    _topic(
        "attention transformer transformers token llm embedding",
        "Attention",
        "In a transformer each position asks a question of every other one, "
        "and mixes their values by how well they match.",
        (
            "Queries, keys and values are three linear maps of the same input.",
            "Dividing by $\\sqrt{d}$ keeps the softmax from saturating.",
            "Cost grows with the square of the length, which is why prompt prefixes are worth caching.",
        ),
        language="python",
        code="import numpy as np\n\ndef attention(q, k, v):\n    scores = q @ k.T / np.sqrt(q.shape[-1])\n"
        "    weights = np.exp(scores - scores.max(-1, keepdims=True))\n"
        "    return weights / weights.sum(-1, keepdims=True) @ v",
        math=r"\operatorname{softmax}\!\left(\frac{QK^\top}{\sqrt{d}}\right)V",
        table=(
            ("Part", "Shape"),
            ("$Q$", "$n \\times d$"),
            ("$QK^\\top$", "$n \\times n$"),
            ("output", "$n \\times d$"),
        ),
    ),
    _topic(
        "regression linear least-squares fit slope",
        "Linear regression",
        "Linear regression finds the line whose squared distances to the points add up to the least.",
        (
            "Plot the residuals: a pattern means that the line is the wrong shape.",
            "One far outlier can turn the line; squares weigh it heavily.",
            "Correlated inputs make single coefficients unstable, not the prediction.",
        ),
        language="python",
        code="import numpy as np\n\nx = np.array([1.0, 2, 3, 4])\ny = np.array([2.1, 3.9, 6.2, 7.8])\n"
        "slope, intercept = np.polyfit(x, y, 1)",
        math=r"\hat\beta = (X^\top X)^{-1} X^\top y",
        table=(("Look at", "To see"), ("residuals", "whether a line fits"), ("$R^2$", "how much is explained")),
    ),
    _topic(
        "search binary bisect sorted logarithm",
        "Binary search",
        "Binary search halves a sorted range with each comparison until nothing is left to halve.",
        (
            "The range must be sorted by what is compared.",
            "Keep one invariant: the answer lies in `[low, high)`.",
            "A million items take 20 comparisons.",
        ),
        language="python",
        code="def find(items, wanted):\n    low, high = 0, len(items)\n    while low < high:\n"
        "        middle = (low + high) // 2\n"
        "        if items[middle] < wanted:\n            low = middle + 1\n"
        "        else:\n            high = middle\n    return low",
        math=r"T(n) = T(n/2) + O(1) = O(\log n)",
        table=(("Items", "Comparisons"), ("1,000", "10"), ("1,000,000", "20"), ("1,000,000,000", "30")),
    ),
    _topic(
        "interest compound savings growth loan",
        "Compound interest",
        "With compound interest the interest earns interest: growth is by a factor a year, not by an amount.",
        (
            "A rate of $r$ percent doubles money in about $72/r$ years.",
            "Compounding more often matters less than it sounds.",
            "Fees compound as well, downwards.",
        ),
        language="python",
        code="def grown(start, rate, years, times=1):\n    return start * (1 + rate / times) ** (times * years)\n\n"
        "round(grown(1000, 0.05, 10), 2)  # -> 1628.89",
        math=r"A = P\left(1 + \frac{r}{n}\right)^{nt}",
        table=(("Years at 5 %", "1,000 become"), ("10", "1,628.89"), ("20", "2,653.30"), ("30", "4,321.94")),
    ),
    _topic(
        "caching cache prompt-caching ttl breakpoint",
        "Prompt caching",
        "A prompt that begins like an earlier one, up to a marked point, "
        "is read from the cache instead of being processed again.",
        (
            "Put what never changes first: tools, then the system prompt, then the conversation.",
            "A write costs more than plain input, a read much less: it pays from the second call on.",
            "One changed character before the mark, and nothing after it is found.",
        ),
        language="python",
        code="client.messages.create(\n    model='claude-sonnet-5-5', max_tokens=1024,\n"
        "    system=[{'type': 'text', 'text': GUIDE, 'cache_control': {'type': 'ephemeral'}}],\n"
        "    messages=[{'role': 'user', 'content': question}],\n)",
        math=r"\text{saved} = n\,(p_{\text{in}} - p_{\text{read}}) - (p_{\text{write}} - p_{\text{in}})",
        table=(
            ("Token", "Costs, times input"),
            ("written, 5 min", "1.25"),
            ("written, 1 h", "2"),
            ("read", "0.1 or less"),
        ),
    ),
)
