"""Client of a served Deep Image Matting model: a command line and the class ``Matte``."""
