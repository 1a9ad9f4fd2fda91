"""``python -m p3d_regression``, for environments whose scripts are not on PATH."""

from p3d_regression.cli.main import main

if __name__ == "__main__":
    main(prog_name="p3d-regression")
