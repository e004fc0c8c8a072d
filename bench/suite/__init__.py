"""What a suite may say: YAML into frozen typed models, every mistake one line.

May import settings and the tables of what a suite names.
"""
