"""`python -m infertool`."""

from infertool.cli.main import run

if __name__ == "__main__":
    run()
