"""What the tables of a suite say when policies and recipes are held against each other; each is worked out once."""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from report.analysis import base_model, checkpoints, kept, recipe_verdicts
from report.analysis import fronts as front_figures
from report.analysis import panel as judge_panel
from report.analysis.ranking import Ranking
from report.analysis.tables import RecipeResults, Tables
from report.analysis.verdicts import Verdicts


class Findings(Tables):
    """Add to a suite's tables what compares their rows: checkpoints, recipes against Sequential, fronts over λ."""

    @cached_property
    def forgetting_scores(self) -> pd.DataFrame:
        """One row per two-phase Sequential run and accuracy: at the phase change and at the end, or why not."""
        return checkpoints.forgetting(self)

    @cached_property
    def kept(self) -> tuple[kept.Summary, ...]:
        """What every recipe learned against what it kept."""
        return kept.summaries(self)

    @cached_property
    def panel(self) -> judge_panel.Panel:
        """The judges, and how far they agree."""
        return judge_panel.panel(self)

    @cached_property
    def against_sequential(self) -> pd.DataFrame:
        """One row per recipe and figure: its difference to Sequential at the same λ, and the corrected verdict."""
        return recipe_verdicts.frame(self)

    @cached_property
    def ranking(self) -> Ranking:
        """Who is ahead of whom."""
        return Ranking(self, lambda: self.against_sequential)

    @cached_property
    def verdicts(self) -> Verdicts:
        """What is said of two policies in one figure, wherever a page names them."""
        return Verdicts(self, self.ranking)

    @cached_property
    def base(self) -> RecipeResults:
        """The base model, like a recipe."""
        return base_model.policy(self)

    def alone(self, objective: str) -> RecipeResults | None:
        """The runs on one objective alone, over seeds; None without any."""
        return next((one for one in self.context if one.method.startswith(f"{objective.upper()} alone")), None)

    @cached_property
    def fronts(self) -> tuple[front_figures.Front, ...]:
        """Every method's front over λ: hypervolume and spread, with intervals over seeds."""
        return front_figures.fronts(self)

    @cached_property
    def dominance(self) -> pd.DataFrame:
        """One row per recipe: whether another is better in both objectives, on average and seed by seed."""
        return front_figures.dominance(self)
