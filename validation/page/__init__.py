"""Markup, looks, behaviour and pictures of the page that ``validation.report`` writes."""
