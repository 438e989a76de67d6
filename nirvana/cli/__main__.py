from nirvana.cli import main

main()
