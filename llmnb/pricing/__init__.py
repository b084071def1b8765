"""Usage → cost: thin over genai-prices, exact in integer nano-dollars, None where no price is known.

`rates` computes, `book` looks prices up, `terms` are the facts of a call that decide, `costs` puts them together,
`caching` says what the prompt cache saves, `table` lists prices, `repricing` prices old rows anew.
"""

from llmnb.pricing.caching import CachePrices as CachePrices
from llmnb.pricing.caching import cache_prices as cache_prices
from llmnb.pricing.caching import saved_by_caching as saved_by_caching
from llmnb.pricing.caching import saved_of_call as saved_of_call
from llmnb.pricing.comparison import CacheBill as CacheBill
from llmnb.pricing.comparison import OnModel as OnModel
from llmnb.pricing.comparison import cache_bill as cache_bill
from llmnb.pricing.comparison import same_tokens_on as same_tokens_on
from llmnb.pricing.costs import cost_of as cost_of
from llmnb.pricing.costs import cost_of_call as cost_of_call
from llmnb.pricing.costs import cost_of_prompts as cost_of_prompts
from llmnb.pricing.own import remove_price as remove_price
from llmnb.pricing.own import set_price as set_price
from llmnb.pricing.repricing import Repricing as Repricing
from llmnb.pricing.repricing import reprice as reprice
from llmnb.pricing.table import PriceRow as PriceRow
from llmnb.pricing.table import price_table as price_table
from llmnb.pricing.terms import Terms as Terms
from llmnb.pricing.terms import billed_model as billed_model
from llmnb.pricing.terms import terms_of as terms_of

__all__ = [
    "CacheBill",
    "CachePrices",
    "OnModel",
    "PriceRow",
    "Repricing",
    "Terms",
    "billed_model",
    "cache_bill",
    "cache_prices",
    "cost_of",
    "cost_of_call",
    "cost_of_prompts",
    "price_table",
    "remove_price",
    "reprice",
    "same_tokens_on",
    "saved_by_caching",
    "saved_of_call",
    "set_price",
]
