"""What speed costs, drawn from a profile."""

import re

import pytest

from tests.unit.diffusion.known import a_profile
from weft.core.errors import InputError
from weft.report.denoise_pareto import asked_plans, pareto_html, pareto_page

EFFORT = 60


def rows_of(page):
    table = page.split("All points")[1].split("</table>")[0]
    body = table.split("<tbody>")[1]
    return [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in body.split("</tr>")[:-1]]


@pytest.fixture(scope="module")
def page():
    return pareto_html(a_profile(), [("other <cache>", 1.8, 25.5)], effort=EFFORT)


def test_every_kind_of_point_has_its_row(page):
    rows = rows_of(page)
    assert ["check 2", "2.00", "1.90", "33.0", "31.5", "predicted before"] in rows
    assert ["4 steps", "", "1.97", "", "23.0", "all in full"] in rows
    assert ["other &lt;cache&gt;", "", "1.80", "", "25.5", "measured by others"] in rows
    assert sum(row[0].startswith("plan for") for row in rows) == 8


def test_plans_are_drawn_where_the_table_has_them(page):
    picture = page.split("</ul><div")[1].split("</svg>")[0]
    assert "fewer steps, measured" in page and "other &lt;cache&gt;" in picture
    drawn = re.findall(r"plans for a speed, predicted: ([\d.]+), ([\d.-]+)</title>", picture)
    listed = [(row[1], row[3]) for row in rows_of(page) if row[0].startswith("plan for") and row[1]]
    assert drawn == listed and len(drawn) >= 3
    assert picture.count(' class="fill-5 hollow"') == 2 and picture.count('class="line-way"') == 2


def test_plans_are_at_least_as_fast_as_asked():
    profile = a_profile(checks=False)
    asked = asked_plans(profile, EFFORT)
    found = [a for a in asked if a.plan is not None]
    assert len(found) >= 3 and all(a.plan.speedup >= a.speedup * (1 - 1e-9) for a in found)
    fastest = profile.search(effort=EFFORT).frontier()[-1].speedup
    assert all(a.speedup > fastest for a in asked if a.plan is None)


def test_a_profile_without_checks_says_so():
    page = pareto_page(a_profile(checks=False), effort=EFFORT)
    assert page.picture.text == "Nothing was checked by running it."
    assert "fewer steps" not in page.picture.body


@pytest.mark.parametrize(
    "point", [("", 2.0, 30.0), ("x", 0.0, 30.0), ("x", 2.0, float("nan")), ("x", float("inf"), 1.0)]
)
def test_points_that_cannot_be_drawn_are_refused(point):
    with pytest.raises(InputError, match="points with a name"):
        pareto_page(a_profile(), [point], effort=EFFORT)


def test_plans_are_those_that_the_profile_gives():
    profile = a_profile()
    (two,) = (a for a in asked_plans(profile) if a.speedup == 2.0)
    assert two.plan == profile.plan(target_speedup=2.0)
