"""The peer of `infertool watch`: the same topics in a Textual app that writes each event to a RichLog."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from textual.app import App, ComposeResult
from textual.widgets import RichLog

from infertool.channels.event import ChannelEvent
from infertool.channels.topics import TopicFeed
from infertool.cli.common import eventlines
from infertool.settings import PhoenixSettings


class Plain(App[None]):
    def compose(self) -> ComposeResult:
        yield RichLog(max_lines=10_000)

    def on_mount(self) -> None:
        settings = PhoenixSettings(url=sys.argv[1])
        topics = (settings.result_topic, settings.alert_topic)
        self.feed = TopicFeed(settings, topics, on_events=self.take, on_connection=lambda event: None)
        self.run_worker(self.feed.connect, thread=True)

    def take(self, arrivals: Sequence[ChannelEvent]) -> None:
        for each in arrivals:
            self.call_later(self.write, each)

    def write(self, each: ChannelEvent) -> None:
        self.query_one(RichLog).write(eventlines.line(each))


if __name__ == "__main__":
    Plain().run()
