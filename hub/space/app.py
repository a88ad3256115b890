"""The Space: the page of `eisnn-zoo demo`."""

from eisnn_zoo.demo import build, launch_options

demo = build()

if __name__ == "__main__":
    demo.launch(**launch_options())
