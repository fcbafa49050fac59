"""Published annotation files, each read into one AnnotationTable."""
