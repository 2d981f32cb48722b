"""Who watches: a terminal with a view that moves, a log with a line now and then, or nobody.

    view = TerminalView(Console()) if sys.stdout.isatty() else LineView(sys.stdout)

All of them are told the same things, and look at the stage at their own pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from reconciler.core.formats import rough_duration
from reconciler.core.values import clean_text
from reconciler.demo import text
from reconciler.demo.outcome import StepOutcome, Summary
from reconciler.demo.picture import ApplicationLine, Picture, TargetLine, WaveLine, picture_of
from reconciler.demo.play import Program
from reconciler.demo.scene import Scene
from reconciler.demo.stage import Stage
from reconciler.demo.steps import Step
from reconciler.shell.ports import AuditRow

LOOK_EVERY_S = 0.2
LINE_EVERY_S = 3.0
LINE_LENGTH_MAX = 500
TOLD_SHOWN = 5
#: Lines for targets or applications in a view; what does not fit is counted.
LINES_MAX = 14
#: Columns of a bar, on a terminal of that many columns and more.
BAR_WIDTHS = ((110, 12), (0, 5))
_COLOURS = {
    "Succeeded": "green",
    "Baking": "cyan",
    "Applying": "blue",
    "Progressing": "blue",
    "Waiting": "dim",
    "Skipped": "dim",
    "Failed": "red",
    "TimedOut": "red",
    "Halted": "red",
    "RollingBack": "yellow",
    "RolledBack": "yellow",
    "Unreachable": "yellow",
    "Drifted": "yellow",
}


class _Paced:
    """What all views know: the step that plays, and when the next look is due by the machine's time."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._next_s = 0.0
        self._scene: Scene | None = None
        self._step: Step | None = None
        self._number = 0
        self._steps = 0

    def begins(self, step: Step, scene: Scene) -> None:
        self._scene, self._step = scene, step
        self._number += 1
        self._next_s = asyncio.get_running_loop().time()

    def _due(self) -> Scene | None:
        """The scene, if it is time for another look."""
        now_s = asyncio.get_running_loop().time()
        if self._scene is None or now_s < self._next_s:
            return None
        self._next_s = now_s + self._every_s
        return self._scene

    def _heading(self, step: Step) -> str:
        return f"Step {self._number} of {self._steps} · {step.name} · {step.title}"

    def _policy_s(self) -> float:
        """How long the step has taken by the policy clock."""
        if self._scene is None:
            return 0.0
        return self._scene.stage.clock.now().monotonic - self._scene.started_s


class NoView:
    """Nobody watches."""

    def waits(self, line: str) -> None:
        """See View."""

    def opens(self, stage: Stage, program: Program) -> None:
        """See View."""

    def begins(self, step: Step, scene: Scene) -> None:
        """See View."""

    def says(self, line: str) -> None:
        """See View."""

    async def ticks(self) -> None:
        """See View."""

    async def ended(self, outcome: StepOutcome) -> None:
        """See View."""

    def closes(self, summary: Summary) -> None:
        """See View."""


class LineView(_Paced):
    """Plain lines: headings, what is done to the fleet, alerts, and how far everything is every few seconds."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(LINE_EVERY_S)
        self._stream = stream
        self._told: set[int] = set()
        self._said: list[tuple[float, str]] = []
        self._stage: Stage | None = None
        self._stays = False

    def waits(self, line: str) -> None:
        self._lines([line])

    def opens(self, stage: Stage, program: Program) -> None:
        self._stage, self._steps, self._stays = stage, len(program.steps), program.stay
        self._lines(text.opening(stage))
        self._lines(text.addresses(stage))

    def begins(self, step: Step, scene: Scene) -> None:
        super().begins(step, scene)
        self._next_s += self._every_s
        self._lines(["", f"== {self._heading(step)}", f"   {step.lesson}"])

    def says(self, line: str) -> None:
        wall = self._stage.clock.now().wall if self._stage is not None else 0.0
        self._said.append((wall, line))

    async def ticks(self) -> None:
        self._tell(())
        scene = self._due()
        if scene is not None:
            picture = await picture_of(scene.stage, scene.mark)
            self._said.append((picture.wall, _in_one_line(picture)))
            self._tell(picture.alerts)

    async def ended(self, outcome: StepOutcome) -> None:
        if self._scene is not None:
            self._tell((await picture_of(self._scene.stage, self._scene.mark)).alerts)
        self._lines([f"   {line}" for line in text.waves_of(outcome)])
        self._lines([f"   {text.result_of(outcome, self._policy_s())}"])

    def closes(self, summary: Summary) -> None:
        self._lines(["", text.closing(summary)])
        self._scene = None
        if self._stays and self._stage is not None:
            self._lines(["The fleet goes on running until Ctrl-C.", *text.addresses(self._stage)])

    def _tell(self, alerts: Iterable[AuditRow]) -> None:
        """What was said since, and the alerts that were not told yet, in the order in which they happened."""
        told = self._said
        for alert in alerts:
            if alert.id not in self._told:
                self._told.add(alert.id)
                told.append((alert.wall, f"{alert.level.upper()} {alert.application}: {alert.message}"))
        self._said = []
        self._lines(f"   {text.clock(wall)}  {line}" for wall, line in sorted(told, key=lambda pair: pair[0]))

    def _lines(self, lines: Iterable[str]) -> None:
        for line in lines:
            printable = "".join(character for character in line if character.isprintable())
            self._stream.write(printable[:LINE_LENGTH_MAX].rstrip() + "\n")
        self._stream.flush()


def _in_one_line(picture: Picture) -> str:
    moving = [line for line in picture.applications if not line.ended]
    parts = [f"{picture.settled} of {picture.targets} targets as Git wants them, healthy"]
    if picture.away:
        parts.append(f"away: {', '.join(picture.away)}")
    if moving:
        parts.append(f"{moving[0].application} waits for {moving[0].waits_for}")
    elif picture.astray:
        parts.append(f"{picture.astray[0].cluster} {picture.astray[0].state}: {picture.astray[0].note}")
    return "; ".join(parts)


class TerminalView(_Paced):
    """A view that moves: a table of what moves and what it waits for, redrawn a few times a second. What would be over
    in a moment is held up a little, so that it can be seen."""

    def __init__(self, console: Console) -> None:
        super().__init__(LOOK_EVERY_S)
        self._console = console
        self._live: Live | None = None
        self._stage: Stage | None = None
        self._said: list[tuple[float, str]] = []
        self._program = Program()
        self._policy: dict[str, float] = {}
        self._pace = 1.0
        self._began_s = 0.0

    def waits(self, line: str) -> None:
        self._console.print(Text(line, style="dim"))

    def opens(self, stage: Stage, program: Program) -> None:
        self._stage, self._steps, self._program = stage, len(program.steps), program
        fleet = "real control planes" if stage.real else "a simulated fleet"
        self._console.print(Rule(f"[bold]Reconciler: the main job, on {fleet}"))
        for line in text.opening(stage):
            self._console.print(Text(line))
        self._addresses(stage)

    def begins(self, step: Step, scene: Scene) -> None:
        super().begins(step, scene)
        self._said.clear()
        self._pace, self._began_s = step.pace, asyncio.get_running_loop().time()
        self._console.print()
        self._console.print(Rule(f"[bold]{escape(self._heading(step))}", align="left"))
        self._console.print(Padding(Text(step.lesson, style="italic"), (0, 0, 0, 1)))
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def says(self, line: str) -> None:
        wall = self._stage.clock.now().wall if self._stage is not None else 0.0
        self._said.append((wall, line))

    async def ticks(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            scene = self._due()
            if scene is not None and self._live is not None:
                picture = await picture_of(scene.stage, scene.mark)
                self._live.update(self._drawn(picture, scene), refresh=True)
            ahead_s = self._policy_s() / self._pace - (loop.time() - self._began_s)
            if self._live is None or ahead_s <= 0:
                return
            await asyncio.sleep(min(ahead_s, LOOK_EVERY_S))

    async def ended(self, outcome: StepOutcome) -> None:
        self._policy[outcome.name] = self._policy_s()
        picture = await picture_of(self._scene.stage, self._scene.mark) if self._scene is not None else None
        self.stop()
        for told in self._told(picture):
            self._console.print(Padding(told, (0, 0, 0, 2)))
        for line in text.waves_of(outcome):
            self._console.print(Padding(Text(line), (0, 0, 0, 2)))
        result = text.result_of(outcome, self._policy_s())
        mark, colour = ("✔", "green") if outcome.wanted else ("✘", "red")
        self._console.print(Padding(Text(f"{mark} {result}", style=f"bold {colour}"), (0, 0, 0, 2)))

    def closes(self, summary: Summary) -> None:
        table = Table(title="", box=None, pad_edge=False, padding=(0, 2))
        for name in ("step", "result", "targets written", "policy time", "real time"):
            table.add_column(name, header_style="dim", justify="left" if name in ("step", "result") else "right")
        for step in summary.steps:
            style = "green" if step.wanted else "red"
            policy = rough_duration(self._policy.get(step.name, 0.0))
            row = (step.name, Text(step.result, style=style), str(step.targets_touched), policy, f"{step.wall_s:.1f} s")
            table.add_row(*row)
        self._console.print()
        self._console.print(Rule("[bold]What happened", align="left"))
        self._console.print(table)
        fleet = f"{summary.applications} applications on {summary.clusters} clusters, {summary.targets} targets."
        self._console.print(Text(f"{fleet} {text.closing(summary)}"))
        if self._program.stay and self._stage is not None:
            self._console.print(Text("The fleet goes on running until Ctrl-C.", style="bold"))
            self._addresses(self._stage)
        else:
            self._console.print(
                Text("`reconciler demo --stay` keeps the fleet running, so that you can try the commands.", style="dim")
            )

    def stop(self) -> None:
        """Give the terminal back as it was. May be called twice."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    # ---- drawing -------------------------------------------------------------------------------------------------

    def _drawn(self, picture: Picture, scene: Scene) -> RenderableType:
        width = next(width for columns, width in BAR_WIDTHS if self._console.width >= columns)
        parts: list[RenderableType] = [self._status(picture, scene)]
        moving = picture.applications
        if len({line.application for line in moving}) == 1:
            parts.append(_targets(moving[-1].targets, width))
        elif moving:
            parts.append(_applications(moving, width))
        if picture.astray:
            parts.append(_targets(picture.astray, 0, first="application"))
        parts.extend(Padding(told, (0, 0, 0, 1)) for told in self._told(picture)[-TOLD_SHOWN:])
        return Group(*parts)

    def _addresses(self, stage: Stage) -> None:
        """Where the API is: lines to copy are not broken."""
        for line in text.addresses(stage):
            self._console.print(Text(line, style="dim"), soft_wrap=True)

    def _told(self, picture: Picture | None) -> list[Text]:
        """What was done to the fleet, and what people were told to act on, in the order in which it happened."""
        told = [(wall, Text(f"{text.clock(wall)}  {line}")) for wall, line in self._said]
        alerts = picture.alerts if picture is not None else ()
        told += [(alert.wall, _alert(text.clock(alert.wall), alert.application, alert.message)) for alert in alerts]
        return [line for _, line in sorted(told, key=lambda pair: pair[0])]

    def _status(self, picture: Picture, scene: Scene) -> Text:
        line = Text(" ")
        line.append(f"policy clock {text.clock(picture.wall)}", style="bold")
        line.append(f" (+{rough_duration(self._policy_s())})   ")
        line.append(f"{picture.settled} of {picture.targets} targets as Git wants them, healthy   ")
        if picture.away:
            line.append(f"away: {', '.join(picture.away)}", style="yellow")
        commit = text.commit_of(scene.stage)
        return Text("\n").join([line, Text(f" commit {commit}" if commit else " the repository is read", style="dim")])


def _alert(moment: str, application: str, message: str) -> Text:
    return Text(f"{moment}  ALERT {application}: {clean_text(message, 300)}", style="bold red")


def _bar(done: float, colour: str, width: int) -> ProgressBar:
    return ProgressBar(total=1.0, completed=done, width=width, complete_style=colour, finished_style="green")


def _targets(targets: Iterable[TargetLine], bar_width: int, *, first: str = "wave") -> Table:
    """A line per target: wave (or application), cluster, state, how much of its bake is done (unless `bar_width` is
    0), what the operator says of its job, what it waits for."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), expand=True)
    heads = [f" {first}", "cluster", "state", *(["bake"] if bar_width else []), "operator says", "waits for"]
    for number, name in enumerate(heads, start=1):
        last = number == len(heads)
        table.add_column(name, header_style="dim", ratio=1 if last else None, no_wrap=True, overflow="ellipsis")
    listed = list(targets)
    group = ""
    for target in listed[:LINES_MAX]:
        colour = _COLOURS.get(target.state, "white")
        shown = target.wave if target.wave != group else ""
        group = target.wave
        bar = [_bar(target.done, colour, bar_width)] if bar_width else []
        fine = target.flink.endswith("/RUNNING") or not target.flink
        flink = Text(target.flink, style="dim" if fine else "yellow")
        note = Text(clean_text(target.note, 200))
        table.add_row(f" {shown}", target.cluster, Text(target.state, style=colour), *bar, flink, note)
    if len(listed) > LINES_MAX:
        table.add_row(Text(f" and {len(listed) - LINES_MAX} more", style="dim"))
    return table


def _applications(lines: Iterable[ApplicationLine], bar_width: int) -> Table:
    """A line per application: its waves side by side, and the one gate that it waits for."""
    listed = list(lines)
    names = text.in_wave_order(wave.name for line in listed for wave in line.waves)
    table = Table(box=None, pad_edge=False, padding=(0, 1), expand=True)
    table.add_column(" application", header_style="dim", no_wrap=True)
    for name in names:
        table.add_column(name, header_style="dim", no_wrap=True)
    table.add_column("waits for", header_style="dim", ratio=1, no_wrap=True, overflow="ellipsis")
    for line in listed[:LINES_MAX]:
        waves = {wave.name: wave for wave in line.waves}
        cells: list[RenderableType] = []
        for name in names:
            wave = waves.get(name)
            cells.append(Text("") if wave is None else _wave_cell(wave, bar_width))
        last = Text(line.state, style=_COLOURS.get(line.state, "white")) if line.ended else Text(line.waits_for)
        table.add_row(f" {line.application}{line.kind}", *cells, last)
    if len(listed) > LINES_MAX:
        table.add_row(Text(f" and {len(listed) - LINES_MAX} more", style="dim"))
    return table


def _wave_cell(wave: WaveLine, bar_width: int) -> RenderableType:
    cell = Table.grid(padding=(0, 1))
    count = Text(f"{wave.baked}/{wave.targets}", style="" if wave.open else "dim")
    cell.add_row(_bar(wave.done, "cyan", bar_width), count)
    return cell
