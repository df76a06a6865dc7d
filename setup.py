"""Everything about the distribution stands in setup.cfg; this file exists for what setup.cfg cannot hold."""

from setuptools import setup

setup()
