"""Phoenix Channels: frames, socket, channel, confirmed delivery."""
