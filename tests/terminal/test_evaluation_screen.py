from tunesmith.terminal.evaluation_screen import harness_screen, sweep_screen


def test_the_scales_of_an_adapter_are_shown_with_the_one_to_keep() -> None:
    measured = ((0, 3.2, 2.5), (0.5, 1.25, 2.6), (1, 1.2, 2.9))
    points = [{"scale": scale, "validation_loss": loss, "probe": probe} for scale, loss, probe in measured]
    text = sweep_screen({"points": points, "best": 1, "recommended": 0.5, "because": "Scale 0.5 forgets less."}).plain
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[1:4] == [["0", "3.200", "2.500"], ["0.5", "1.250", "2.600", "recommended"], ["1", "1.200", "2.900", "best"]]
    assert "keep       Scale 0.5 forgets less." in text


def test_figures_of_the_harness_are_shown_and_what_is_no_number_is_not() -> None:
    results = {"arc": {"alias": "arc", "acc,none": 0.25, "acc_stderr,none": 0.0433, "is_greedy": True}}
    lines = [line.split() for line in harness_screen({"results": results}).plain.splitlines()]
    assert lines == [["task", "figure", "value"], ["arc", "acc,none", "0.25"], ["arc", "acc_stderr,none", "0.0433"]]
