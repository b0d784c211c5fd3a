"""Whether anything is wrong, lost or grows, under load and under attack."""
