"""Run from a checkout without installing: python cli.py convert vgg11.pt --scheme adabin --add-shortcuts"""

from binarize.cli import main

if __name__ == "__main__":
    main()
