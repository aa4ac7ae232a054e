-- Holds the number until the migration that has it is merged; changes nothing.

create database if not exists keymeter;
