"""What every stage costs as data and workers grow, and what that comes to."""
