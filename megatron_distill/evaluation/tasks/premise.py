"""Domain-conditional PMI (Holtzman et al. 2021, arXiv:2104.08315) as a metric of the harness.

The choice with the largest log P(choice | context) - log P(choice | premise) wins: what the question adds to how likely
the choice is anyway. The harness's own `acc_mutual_info` has an empty premise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

_METRICS = ("acc_pmi", "acc_pmi_ratio")
"""The difference above; and the quotient of both log-likelihoods, which the papers' team had in a later program."""


class DomainPremise(ConfigurableTask):
    """A multiple-choice task that also asks for each choice after `metadata.premise`."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={name: value for name, value in config.items() if name != "class"})
        self.premise = config["metadata"]["premise"]

    def construct_requests(self, doc: dict[str, Any], ctx: str, **kwargs: Any) -> list[Instance]:
        """The usual ones, then those with the premise."""
        usual = super().construct_requests(doc, ctx, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("apply_chat_template", "chat_template")}
        extra = [
            Instance(request_type="loglikelihood", doc=doc, arguments=(self.premise, one.args[1]), idx=number, **kwargs)
            for number, one in enumerate(usual, len(usual))
        ]
        return usual + extra

    def process_results(self, doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
        """The usual metrics, acc_pmi and acc_pmi_ratio."""
        half = len(results) // 2
        given, alone = (np.array([log_prob for log_prob, _ in part]) for part in (results[:half], results[half:]))
        gold = self.doc_to_target(doc)
        pmi = {"acc_pmi": given - alone, "acc_pmi_ratio": given / alone}
        right = {name: float(np.argmax(values) == gold) for name, values in pmi.items()}
        return super().process_results(doc, results[:half]) | right

    def aggregation(self) -> dict[str, Any]:
        """How each metric of items becomes one of the task."""
        return super().aggregation() | dict.fromkeys(_METRICS, mean)

    def higher_is_better(self) -> dict[str, bool]:
        """For each metric."""
        return super().higher_is_better() | dict.fromkeys(_METRICS, True)
