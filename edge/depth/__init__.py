"""From depth frames to people above a floor: pure, replays from a folder, keeps no image longer than it must."""
